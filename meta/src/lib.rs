//! The metadata service: Raft, the state machine, the healer
