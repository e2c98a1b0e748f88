//! The greeting: what both sides tell each other first.

use std::sync::{Arc, OnceLock};

use proto::limits::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use proto::{ClusterId, ErrorCode, Failure, InvalidInput, wire};

/// What this process says of itself on each connection. Clones are the same process.
#[derive(Clone, Debug, Default)]
pub struct Local {
    cluster: Arc<OnceLock<ClusterId>>,
}

impl Local {
    /// A process that does not know its cluster yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process has learned its cluster; the first call decides.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WrongCluster`] when it belongs to another.
    pub fn join(&self, cluster: ClusterId) -> Result<(), Failure> {
        let own = *self.cluster.get_or_init(|| cluster);
        if own == cluster { Ok(()) } else { Err(wrong_cluster(own, cluster)) }
    }

    /// The cluster, once known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    pub(super) fn hello(&self) -> wire::Hello {
        wire::Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            software: concat!("cadole ", env!("CARGO_PKG_VERSION")).to_owned(),
            cluster_id: self.cluster().map(ClusterId::to_wire).unwrap_or_default(),
        }
    }

    /// Do we understand each other? The version to speak is the highest that both know.
    pub(super) fn check(&self, peer: &wire::Hello) -> Result<u32, Failure> {
        if let (Some(own), Some(theirs)) = (self.cluster(), parse_cluster(peer)?)
            && own != theirs
        {
            return Err(wrong_cluster(own, theirs));
        }
        let version = PROTOCOL_VERSION.min(peer.version_max);
        if version < PROTOCOL_VERSION_MIN.max(peer.version_min) {
            return Err(Failure::new(
                ErrorCode::VersionMismatch,
                format!(
                    "the peer ({:?}) speaks protocol versions {} to {}, this process {} to {}: upgrade the older one",
                    peer.software, peer.version_min, peer.version_max, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION
                ),
            ));
        }
        Ok(version)
    }
}

pub(super) fn parse_cluster(peer: &wire::Hello) -> Result<Option<ClusterId>, InvalidInput> {
    if peer.cluster_id.is_empty() { Ok(None) } else { ClusterId::from_wire(&peer.cluster_id).map(Some) }
}

fn wrong_cluster(own: ClusterId, theirs: ClusterId) -> Failure {
    Failure::new(
        ErrorCode::WrongCluster,
        format!(
            "the peer belongs to cluster {theirs}, this process to {own}: check the addresses and the data directory"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Overlapping ranges agree on the highest common version; others and other clusters are refused.
    #[test]
    fn greeting_is_checked() {
        let local = Local::new();
        let hello = |min, max, cluster: Option<ClusterId>| wire::Hello {
            version_min: min,
            version_max: max,
            cluster_id: cluster.map(ClusterId::to_wire).unwrap_or_default(),
            ..Default::default()
        };
        assert_eq!(local.check(&hello(1, 9, None)), Ok(1));
        assert_eq!(local.check(&hello(2, 9, None)).map_err(|f| f.code), Err(ErrorCode::VersionMismatch));
        assert_eq!(local.check(&hello(1, 1, Some(ClusterId(5)))), Ok(1));
        assert_eq!(local.join(ClusterId(5)), Ok(()));
        assert_eq!(local.join(ClusterId(6)).map_err(|f| f.code), Err(ErrorCode::WrongCluster));
        assert_eq!(
            local.check(&hello(1, 1, Some(ClusterId(6)))).map_err(|f| f.code),
            Err(ErrorCode::WrongCluster)
        );
        let torn = wire::Hello { cluster_id: vec![1, 2].into(), ..hello(1, 1, None) };
        assert!(local.check(&torn).is_err());
    }
}
