//! Where C ends and Rust begins: panics caught, pointers checked, texts and handles passed over.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SlmrecStatus;
use crate::error::SlmrecError;
use crate::limits;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs the body of a call; a failure or a panic becomes a status and leaves its message.
///
/// A panic inside a recommender poisons its lock, so nothing half-changed is used afterwards.
pub(super) fn call(body: impl FnOnce() -> Result<(), SlmrecError>) -> SlmrecStatus {
    let fault = || SlmrecError::Internal("a fault of the library; its panic was caught".into());
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(fault()));
    match result {
        Ok(()) => SlmrecStatus::Ok,
        Err(error) => {
            let message = c_string(error.to_string());
            LAST_ERROR.with(|last| last.replace(message));
            SlmrecStatus::from(&error)
        }
    }
}

pub(super) fn last_error() -> *const c_char {
    // The buffer of a `CString` does not move with it.
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// What a handle points to.
///
/// # Safety
/// Null, or a handle that is alive for `'a`.
pub(super) unsafe fn object<'a, T>(what: &str, handle: *const T) -> Result<&'a T, SlmrecError> {
    // SAFETY: by the contract above.
    unsafe { handle.as_ref() }.ok_or_else(|| is_null(what))
}

/// A text of the caller.
///
/// # Safety
/// Null, or a text that ends in NUL and does not change during `'a`.
pub(super) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, SlmrecError> {
    if text.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: by the contract above.
    let text = unsafe { CStr::from_ptr(text) };
    limits::check_text(what, text.count_bytes())?;
    text.to_str()
        .map_err(|error| SlmrecError::InvalidArgument(format!("{what} is not UTF-8: {error}")))
}

/// A question of the caller.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn question<T: DeserializeOwned>(
    what: &str,
    json: *const c_char,
) -> Result<T, SlmrecError> {
    // SAFETY: by the contract above.
    let json = unsafe { text(what, json) }?;
    serde_json::from_str(json)
        .map_err(|error| SlmrecError::InvalidArgument(format!("{what}: {error}")))
}

/// Sets an out parameter to null before anything can fail, so that a caller never frees rubbish.
///
/// # Safety
/// Null, or a place that may be written.
pub(super) unsafe fn clear<T>(what: &str, out: *mut *mut T) -> Result<(), SlmrecError> {
    if out.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: by the contract above.
    unsafe { out.write(ptr::null_mut()) };
    Ok(())
}

/// Hands a value over; the caller frees it by the function of its type.
///
/// # Safety
/// A place that may be written.
pub(super) unsafe fn give<T>(out: *mut *mut T, value: T) {
    // SAFETY: by the contract above.
    unsafe { out.write(Box::into_raw(Box::new(value))) };
}

/// Hands an answer over; the caller frees it with `slmrec_string_free`.
///
/// # Safety
/// As [`give`].
pub(super) unsafe fn give_json(
    out: *mut *mut c_char,
    answer: &impl Serialize,
) -> Result<(), SlmrecError> {
    let json = serde_json::to_string(answer)
        .map_err(|error| SlmrecError::Internal(format!("the answer is no JSON: {error}")))?;
    // SAFETY: by the contract above.
    unsafe { give_text(out, json) };
    Ok(())
}

/// Hands a text over.
///
/// # Safety
/// As [`give`].
pub(super) unsafe fn give_text(out: *mut *mut c_char, text: String) {
    // SAFETY: by the contract above.
    unsafe { out.write(c_string(text).into_raw()) };
}

/// Takes a value back and drops it. Null does nothing.
///
/// # Safety
/// Null, or a value from [`give`] that was not taken back before.
pub(super) unsafe fn take_back<T>(value: *mut T) {
    if !value.is_null() {
        // SAFETY: by the contract above.
        let value = unsafe { Box::from_raw(value) };
        // Dropping runs code of ours and of the engine; a panic must not reach C.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

/// JSON has no NUL and messages rarely; where there is one, the text ends before it.
fn c_string(text: String) -> CString {
    let mut bytes = text.into_bytes();
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    CString::new(bytes).unwrap_or_default()
}

fn is_null(what: &str) -> SlmrecError {
    SlmrecError::InvalidArgument(format!("{what} is null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_message() {
        let status = call(|| panic!("on purpose"));
        assert_eq!(status, SlmrecStatus::Internal);
        // SAFETY: a text of this thread that no later call has replaced.
        let message = unsafe { CStr::from_ptr(last_error()) };
        assert!(message.to_string_lossy().contains("caught"), "{message:?}");
    }

    #[test]
    fn texts_are_checked() {
        // SAFETY: literals that end in NUL, and null.
        unsafe {
            assert_eq!(text("x", c"a".as_ptr()), Ok("a"));
            assert!(text("x", ptr::null()).is_err());
            assert!(text("x", c"\xff".as_ptr()).is_err());
            assert!(question::<Vec<String>>("x", c"[1]".as_ptr()).is_err());
        }
    }
}
