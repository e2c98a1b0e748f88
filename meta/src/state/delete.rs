//! An object goes.

use env::KvRead;
use proto::{BucketId, ObjectKey, wire};
use wire::outcome::Outcome as Answer;

use crate::state::error::Error;
use crate::state::objects::Found;
use crate::state::parse::check_precondition;
use crate::state::{Machine, Tx, tables as t};

impl Machine {
    /// Removes the object from the index; its shards go to the garbage.
    pub(super) fn delete_object<K: KvRead>(
        &mut self,
        tx: &mut Tx<'_, K>,
        delete: wire::DeleteObject,
    ) -> Result<Answer, Error> {
        let key = ObjectKey::parse(delete.key)?;
        let bucket = BucketId(self.bucket(&delete.tenant, &delete.bucket)?.id);
        let found = Found::read(tx, bucket, key.as_bytes())?;
        check_precondition(delete.precondition.as_ref(), found.version())?;
        let existed = found.row.is_some();
        if let Some(row) = found.row {
            self.retire(tx, &row)?;
            self.count_object(tx, bucket, Some(row.size), None)?;
            tx.delete(t::OBJECTS, found.table_key);
        }
        Ok(Answer::DeleteObject(wire::DeleteObjectReply { existed, repeated: false }))
    }
}
