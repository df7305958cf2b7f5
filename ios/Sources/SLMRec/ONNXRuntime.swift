import Foundation

#if canImport(Darwin)
    internal import SLMRecLink
#endif

/// Official builds of ONNX Runtime collect telemetry unless this variable is set before the library
/// is loaded. Call it first in the app's initialiser where something else of the app uses ONNX
/// Runtime; opening a recommender calls it.
public func switchTelemetryOff() {
    setenv("ORT_DISABLE_TELEMETRY", "1", 1)
}

/// On Apple systems ONNX Runtime is a part of the app; elsewhere the native side loads it.
func useLinkedRuntime() throws {
    #if canImport(Darwin)
        guard slmrec_link_onnxruntime() == 0 else {
            throw SLMRecError.onnxRuntime(
                "the one of the app is older than 1.24, or another one is loaded")
        }
    #endif
}
