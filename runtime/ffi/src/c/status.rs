//! How a call ended, and what it left behind.

use std::ffi::{CString, c_char};

use super::border;
use crate::error::SlmrecError;

/// How a call ended. Numbers are never used again; new ones may be added, so treat one that you do
/// not know as a failure.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlmrecStatus {
    /// It has done what it should.
    Ok = 0,
    /// An argument that is no use: null, not UTF-8, not the JSON that is expected, too long.
    InvalidArgument = 1,
    /// A file cannot be opened or read.
    File = 2,
    /// The file is not a bundle or pack, or a damaged one.
    DamagedBundle = 3,
    /// The bundle or pack wants a newer version of this library, or has no model for it.
    UnsupportedBundle = 4,
    /// The history is empty, or the catalog has none of its items.
    NoUsableHistory = 5,
    /// ONNX Runtime is not there, is too old, or is another one than this process has loaded.
    OnnxRuntime = 6,
    /// The execution provider that was asked for is not there or does not start.
    Provider = 7,
    /// The engine fails on the model.
    Engine = 8,
    /// The written history state is damaged or of another bundle.
    HistoryState = 9,
    /// The token of the question was cancelled.
    Cancelled = 10,
    /// A fault of this library. The recommender that it happened in answers no more.
    Internal = 11,
}

impl From<&SlmrecError> for SlmrecStatus {
    fn from(error: &SlmrecError) -> Self {
        match error {
            SlmrecError::InvalidArgument(_) => Self::InvalidArgument,
            SlmrecError::File(_) => Self::File,
            SlmrecError::DamagedBundle(_) => Self::DamagedBundle,
            SlmrecError::UnsupportedBundle(_) => Self::UnsupportedBundle,
            SlmrecError::NoUsableHistory(_) => Self::NoUsableHistory,
            SlmrecError::OnnxRuntime(_) => Self::OnnxRuntime,
            SlmrecError::Provider(_) => Self::Provider,
            SlmrecError::Engine(_) => Self::Engine,
            SlmrecError::HistoryState(_) => Self::HistoryState,
            SlmrecError::Cancelled(_) => Self::Cancelled,
            SlmrecError::Internal(_) => Self::Internal,
        }
    }
}

/// What the last call of this thread that failed had to say, for logs; empty before the first.
/// Valid until this thread's next call that fails. Not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn slmrec_last_error() -> *const c_char {
    border::last_error()
}

/// The version of this library. Not to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn slmrec_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Frees a text that a call of this library has given. Null is allowed.
///
/// # Safety
/// The text is from this library and was not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: by the contract above it is from `CString::into_raw` in `border`.
        drop(unsafe { CString::from_raw(text) });
    }
}
