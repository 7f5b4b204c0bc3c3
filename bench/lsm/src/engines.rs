//! The two engines behind [`Store`], with the same settings where both have them.

use std::path::Path;

use crate::Result;
use crate::store::{Settings, Store};

/// Open the store of `engine` in `folder`, which is created if it does not exist.
///
/// # Errors
/// The engine's, or an engine that is not compiled in.
pub fn open(engine: &str, folder: &Path, settings: Settings) -> Result<Box<dyn Store>> {
    match engine {
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Box::new(with_fjall::Fjall::open(folder, settings)?)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Ok(Box::new(with_rocksdb::Rocks::open(folder, settings)?)),
        _ => Err(format!("no engine {engine:?} in this build").into()),
    }
}

#[cfg(feature = "fjall")]
mod with_fjall {
    use super::{Path, Result, Settings, Store};
    use crate::store::{Row, Table, Visit};
    use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
    use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

    pub struct Fjall {
        database: Database,
        keyspaces: Vec<Keyspace>,
    }

    impl Fjall {
        pub fn open(folder: &Path, settings: Settings) -> Result<Self> {
            let database = Database::builder(folder)
                .cache_size(settings.cache_bytes)
                .max_journaling_size(settings.journal_bytes)
                .worker_threads(settings.workers)
                .manual_journal_persist(true)
                .open()?;
            let options = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(settings.memtable_bytes)
                    .data_block_compression_policy(CompressionPolicy::disabled())
                    .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(
                        10.0,
                    ))))
            };
            let keyspaces = Table::ALL
                .iter()
                .map(|table| database.keyspace(table.name(), options))
                .collect::<fjall::Result<_>>()?;
            Ok(Self { database, keyspaces })
        }

        fn keyspace(&self, table: Table) -> &Keyspace {
            &self.keyspaces[table as usize]
        }
    }

    impl Store for Fjall {
        fn commit(&self, rows: Vec<Row>, sync: bool) -> Result<()> {
            let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
            let mut batch = self.database.batch().durability(Some(mode));
            for row in rows {
                batch.insert(self.keyspace(row.table), row.key, row.value);
            }
            Ok(batch.commit()?)
        }

        fn get(&self, table: Table, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
            let value = self.database.snapshot().get(self.keyspace(table), key)?;
            Ok(value.inspect(|value| found(value)).is_some())
        }

        fn scan(&self, table: Table, each: &mut Visit<'_>) -> Result<()> {
            for row in self.database.snapshot().iter(self.keyspace(table)) {
                let (key, value) = row.into_inner()?;
                each(&key, &value)?;
            }
            Ok(())
        }

        fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
            let row = self.database.snapshot().last_key_value(self.keyspace(table));
            let row = row.map(fjall::Guard::into_inner).transpose()?;
            Ok(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
        }
    }
}

#[cfg(feature = "rocksdb")]
mod with_rocksdb {
    use super::{Path, Result, Settings, Store};
    use crate::store::{Row, Table, Visit};
    use rocksdb::{
        BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, Options, WriteBatch,
        WriteOptions,
    };

    pub struct Rocks(DB);

    impl Rocks {
        pub fn open(folder: &Path, settings: Settings) -> Result<Self> {
            let mut options = Options::default();
            options.create_if_missing(true);
            options.create_missing_column_families(true);
            options.set_max_total_wal_size(settings.journal_bytes);
            options.set_max_background_jobs(i32::try_from(settings.workers)?);
            options.set_keep_log_file_num(2);
            let cache = Cache::new_lru_cache(usize::try_from(settings.cache_bytes)?);
            let families = Table::ALL.map(|table| {
                let mut blocks = BlockBasedOptions::default();
                blocks.set_block_cache(&cache);
                blocks.set_bloom_filter(10.0, false);
                let mut family = Options::default();
                family.set_block_based_table_factory(&blocks);
                family.set_write_buffer_size(usize::try_from(settings.memtable_bytes).unwrap_or(usize::MAX));
                // As many waiting memtables as fjall allows before a writer must wait.
                family.set_max_write_buffer_number(4);
                ColumnFamilyDescriptor::new(table.name(), family)
            });
            Ok(Self(DB::open_cf_descriptors(&options, folder, families)?))
        }

        fn family(&self, table: Table) -> Result<&ColumnFamily> {
            Ok(self.0.cf_handle(table.name()).ok_or("a column family is missing")?)
        }
    }

    impl Store for Rocks {
        fn commit(&self, rows: Vec<Row>, sync: bool) -> Result<()> {
            let mut batch = WriteBatch::default();
            for row in rows {
                batch.put_cf(self.family(row.table)?, row.key, row.value);
            }
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            Ok(self.0.write_opt(batch, &options)?)
        }

        fn get(&self, table: Table, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
            let value = self.0.get_pinned_cf(self.family(table)?, key)?;
            Ok(value.inspect(|value| found(value)).is_some())
        }

        fn scan(&self, table: Table, each: &mut Visit<'_>) -> Result<()> {
            let mut rows = self.0.raw_iterator_cf(self.family(table)?);
            rows.seek_to_first();
            while let Some((key, value)) = rows.item() {
                each(key, value)?;
                rows.next();
            }
            Ok(rows.status()?)
        }

        fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
            let row = self.0.iterator_cf(self.family(table)?, IteratorMode::End).next().transpose()?;
            Ok(row.map(|(key, value)| (key.into_vec(), value.into_vec())))
        }
    }
}
