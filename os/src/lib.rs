//! The real side of the seam: disks, QUIC, RocksDB, certificates
