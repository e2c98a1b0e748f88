//! RocksDB's settings.

use std::ffi::c_int;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One table's changes in memory before they go to a file.
const MEMTABLE_BYTES: usize = 16 * MIB;
/// All tables' of one store.
const MEMTABLES_BYTES: usize = 32 * MIB;
/// The log that a start has to replay, at most; all tables go to files beyond it.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Blocks of files in memory, for all stores of the process together.
const CACHE_BYTES: usize = 64 * MIB;
const BLOCK_BYTES: usize = 16 * KIB;
/// Of one store. A process may have a store for each of sixty disks.
const OPEN_FILES_MAX: c_int = 256;
/// RocksDB's own log for people: bounded, so that it never fills the disk.
const INFO_LOG_BYTES_MAX: usize = MIB;
const INFO_LOGS_KEPT: usize = 5;
const MANIFEST_BYTES_MAX: usize = 16 * MIB;
const BLOOM_BITS_PER_KEY: f64 = 10.0;

/// What all stores of a process share.
pub(super) struct Limits {
    cache: Cache,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cache: Cache::new_lru_cache(CACHE_BYTES) }
    }
}

impl Limits {
    /// The settings of a store and of each of its tables.
    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        set_durability(&mut options);
        set_bounds(&mut options);
        options.set_compression_type(DBCompressionType::None);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn);
        options.set_block_based_table_factory(&self.blocks());
        options
    }

    fn blocks(&self) -> BlockBasedOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_block_size(BLOCK_BYTES);
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        // In the cache, so that its bound covers them too.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks
    }
}

/// What a crash leaves; see the module above.
fn set_durability(options: &mut Options) {
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    // A log that is reused needs no update of its size with each sync.
    options.set_recycle_log_file_num(2);
}

fn set_bounds(options: &mut Options) {
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_keep_log_file_num(INFO_LOGS_KEPT);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    // Dirty pages go out as they come, so that a sync does not find megabytes of them.
    options.set_bytes_per_sync(1 << 20);
}
