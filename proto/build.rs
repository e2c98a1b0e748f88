//! Compiles the `.proto` files with protox, so that no system `protoc` is needed.

use std::error::Error;

const FILES: [&str; 6] = [
    "schema/frame.proto",
    "schema/map.proto",
    "schema/meta.proto",
    "schema/raft.proto",
    "schema/shard.proto",
    "schema/state.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=schema");
    let descriptors = protox::compile(FILES, ["schema"])?;
    prost_build::Config::new().btree_map(["."]).bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
