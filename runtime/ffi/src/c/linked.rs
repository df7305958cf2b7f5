//! ONNX Runtime as a part of the program, where a library cannot be loaded by its name.

use std::ffi::c_void;

use ort::sys::{ORT_API_VERSION, OrtApi, OrtApiBase};
use slmrec_runtime::RuntimeError;

use super::{SlmrecStatus, border};
use crate::error::SlmrecError;

/// Takes the ONNX Runtime that is linked into the program, as in apps for iOS, instead of loading
/// one: `get_api_base` is the address of its function `OrtGetApiBase`. To be called before the first
/// `slmrec_open`, which then names no library. May be called again.
///
/// # Safety
/// Null, or the function of an ONNX Runtime that stays for the rest of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slmrec_use_linked_onnxruntime(
    get_api_base: Option<unsafe extern "C" fn() -> *const c_void>,
) -> SlmrecStatus {
    border::call(|| {
        let function = get_api_base
            .ok_or_else(|| SlmrecError::InvalidArgument("get_api_base is null".into()))?;
        // SAFETY: by the contract above.
        let api = unsafe { api_of(function().cast()) };
        let api = api.ok_or_else(|| {
            SlmrecError::OnnxRuntime(format!(
                "the ONNX Runtime of the program is older than 1.{ORT_API_VERSION}"
            ))
        })?;
        // Not the first call, if it is false; the runtime knows then whose library is in use.
        let _first = ort::set_api(api);
        slmrec_runtime::engine::use_linked_library().map_err(|e: RuntimeError| e.into())
    })
}

/// Its interface in the version that this library speaks, unless it is older.
///
/// # Safety
/// Null, or what `OrtGetApiBase` gave.
unsafe fn api_of(base: *const OrtApiBase) -> Option<OrtApi> {
    // SAFETY: by the contract above; newer versions give an old interface unchanged.
    unsafe {
        let get_api = base.as_ref()?.GetApi;
        get_api(ORT_API_VERSION).as_ref().cloned()
    }
}
