//! `clusterctl object explain`: where each shard lies, and why there.
//!
//! The answer comes from the same code that chose the places: the `placement` crate, on the cluster
//! map as the metadata service has it now.

use placement::ClusterMap;
use proto::{GroupId, InvalidInput, wire};
use serde_json::{Value, json};

use super::Path;
use crate::Session;
use crate::output::{hex, size};

/// Explains one object.
///
/// # Errors
///
/// When there is no such object, or nobody answers.
pub(super) async fn run(session: &Session, path: &Path) -> anyhow::Result<()> {
    let (bucket, key) = path.object(session).await?;
    let stat = bucket.stat(&key).await?;
    let map = ClusterMap::try_from(session.connect().await?.admin().map().await?)?;
    let mut extents = Vec::new();
    for extent in &stat.extents {
        extents.push(explain_extent(&map, extent)?);
    }
    let value = json!({
        "key": key.as_str(), "version": stat.info.version.0, "size": stat.info.size, "inline": stat.is_inline,
        "map_version": map.version(),
        "extents": extents.iter().map(|(value, _)| value).collect::<Vec<_>>(),
    });
    session.format.print(&value, || {
        let mut text = vec![format!(
            "{}/{key}, version {}, {}; tolerates: {}",
            bucket.name(),
            stat.info.version,
            size(stat.info.size),
            stat.tolerates
        )];
        if stat.is_inline {
            text.push("small enough for the metadata record: it lies on every metadata server".to_owned());
        }
        text.extend(extents.iter().map(|(_, text)| text.clone()));
        text.join("\n")
    });
    Ok(())
}

fn explain_extent(map: &ClusterMap, extent: &wire::Extent) -> Result<(Value, String), InvalidInput> {
    let group = GroupId(extent.group);
    let explanation = map
        .groups()
        .get(&group)
        .and_then(|group| placement::explain(map, group))
        .ok_or_else(|| InvalidInput::new(format!("group {group} is not in the map: ask again")))?;
    let missing: Vec<usize> = (0..32).filter(|slot| extent.missing >> slot & 1 == 1).collect();
    let value = json!({
        "extent": hex(&extent.id), "length": extent.length, "group": extent.group,
        "missing_slots": missing, "explanation": serde_json::to_value(&explanation).unwrap_or_default(),
    });
    let mut text = format!("\nextent {}, {}, in {explanation}", hex(&extent.id), size(extent.length));
    if !missing.is_empty() {
        text += &format!("\nslots that miss shards of this extent, to be filled first: {missing:?}");
    }
    Ok((value, text))
}
