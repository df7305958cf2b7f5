import Foundation

/// Official builds of ONNX Runtime collect telemetry unless this variable is set before the library
/// is loaded. Call it first in the app's initialiser where something else of the app uses ONNX
/// Runtime; opening a recommender calls it.
public func switchTelemetryOff() {
    setenv("ORT_DISABLE_TELEMETRY", "1", 1)
}
