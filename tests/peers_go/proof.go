// Verifies a .tlog-proof file with the packages of Go's own checksum database: proof FILE VKEY.
package main

import (
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func hash(text string) (found tlog.Hash) {
	bytes, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(bytes) != len(found) {
		log.Fatalf("expected a hash, found %q", text)
	}
	copy(found[:], bytes)
	return found
}

func number(text string) int64 {
	found, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return found
}

func main() {
	file, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	parts := strings.SplitN(string(file), "\n\n", 2)
	lines := strings.Split(parts[0], "\n")
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil || lines[0] != "c2sp.org/tlog-proof@v1" {
		log.Fatalf("expected a proof with an entry, found %q", lines[:2])
	}
	index := number(strings.TrimPrefix(lines[2], "index "))
	var path tlog.RecordProof
	for _, line := range lines[3:] {
		path = append(path, hash(line))
	}
	key, err := note.NewVerifier(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	verified, err := note.Open([]byte(parts[1]), note.VerifierList(key))
	if err != nil {
		log.Fatal(err)
	}
	checkpoint := strings.Split(verified.Text, "\n")
	err = tlog.CheckRecord(path, number(checkpoint[1]), hash(checkpoint[2]), index, tlog.RecordHash(entry))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(index)
}
