//! How much a caller may hand over: lists and texts can come from a server or a file.

use crate::error::SlmrecError;

/// Longest id or category, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 4096;
/// Most ids of one list.
pub(crate) const MAX_IDS: usize = 1_000_000;
/// Longest written history state, and longest text of a C caller, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 << 20;

/// Refuses lists and ids (or categories) that are too long; `what` names the list.
pub(crate) fn check_ids(what: &str, ids: &[String]) -> Result<(), SlmrecError> {
    if ids.len() > MAX_IDS {
        return Err(too_much(what, ids.len(), "ids", MAX_IDS));
    }
    match ids.iter().find(|id| id.len() > MAX_ID_BYTES) {
        Some(id) => Err(too_much(
            &format!("an id of {what}"),
            id.len(),
            "bytes",
            MAX_ID_BYTES,
        )),
        None => Ok(()),
    }
}

/// Refuses texts that are too long.
pub(crate) fn check_text(what: &str, bytes: usize) -> Result<(), SlmrecError> {
    if bytes > MAX_TEXT_BYTES {
        return Err(too_much(what, bytes, "bytes", MAX_TEXT_BYTES));
    }
    Ok(())
}

fn too_much(what: &str, found: usize, unit: &str, most: usize) -> SlmrecError {
    SlmrecError::InvalidArgument(format!("{what}: {found} {unit}, at most {most} are read"))
}
