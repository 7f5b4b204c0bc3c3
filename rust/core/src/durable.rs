//! Files and folders that survive a power cut and that only their owner can read.
//!
//! Anyone who can read a digest can guess its event if there are few possible events, and anyone who can write to a data folder can
//! replace the log. So permissions never depend on the umask of the process that creates the files.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The permissions of the group and of everybody else; and of these, the ones that allow changes.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;

/// Create a folder and any missing parents. Each new folder is synced into its parent: a power cut must not remove the name of the
/// log. Only the folder itself is made private.
///
/// # Errors
///
/// Any error of the operating system. It is not an error if the folder exists.
pub fn make_folder(path: &Path) -> io::Result<()> {
    make(path, FOLDER_MODE)
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    #[expect(clippy::expect_used, reason = "only the root has no parent, and it exists")]
    let parent = path.parent().expect("a folder that does not exist has a parent");
    make(parent, 0o777)?;
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Make the names in a folder durable.
///
/// # Errors
///
/// Any error of the operating system.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replace a file with what `write` writes. After a crash the file has either the old content or the new; once this returns, it has
/// the new. An incomplete new file has the extension `new`.
///
/// # Errors
///
/// Any error of `write` or of the operating system.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    sync_folder(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Open a file for reading and writing, creating an empty one if it does not exist.
///
/// # Errors
///
/// Any error of the operating system.
pub fn open_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// If other users may have written to a folder, return its mode and change nothing. Otherwise remove their access to it, if we own it.
///
/// An empty folder that others can write to cannot hold anything of theirs yet, so their access is removed too: container platforms
/// create volumes like that.
///
/// # Errors
///
/// Any error of the operating system.
pub fn close_to_others(folder: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(folder)?.permissions().mode() & 0o7777;
    let is_open = mode & OTHERS_WRITE != 0;
    if is_open && fs::read_dir(folder)?.next().is_some() {
        return Ok(Some(mode));
    }
    if mode & OTHERS != 0 {
        match fs::set_permissions(folder, Permissions::from_mode(mode & !OTHERS)) {
            // The folder has another owner, who decides who may read it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(is_open.then_some(mode)),
            outcome => outcome?,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("above").join("data");
        make_folder(&path).unwrap();
        make_folder(&path).unwrap();
        let file = path.join("FORMAT");
        replace(&file, |file| io::Write::write_all(file, b"one")).unwrap();
        replace(&file, |file| io::Write::write_all(file, b"two")).unwrap();
        open_file(&path.join("durable")).unwrap();
        assert_eq!((mode(&path), mode(&file), mode(&path.join("durable"))), (0o700, 0o600, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(!path.join("FORMAT.new").exists());
    }

    #[test]
    fn a_folder_that_others_may_only_read_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        for (found, left) in [(0o755, 0o700), (0o750, 0o700), (0o700, 0o700), (0o500, 0o500)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(found)).unwrap();
            assert_eq!(close_to_others(folder.path()).unwrap(), None);
            assert_eq!(mode(folder.path()), left);
        }
        for found in [0o775, 0o702, 0o777, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(found)).unwrap();
            assert_eq!(close_to_others(folder.path()).unwrap(), None, "it is empty, so it holds nothing of others");
            assert_eq!(mode(folder.path()), 0o700);
        }
        fs::write(folder.path().join("FORMAT"), b"").unwrap();
        for found in [0o775, 0o702, 0o777, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(found)).unwrap();
            assert_eq!(close_to_others(folder.path()).unwrap(), Some(found));
            assert_eq!(mode(folder.path()), found & 0o777, "the mode is unchanged");
        }
    }
}
