package io.slmrec

/** Everything that can go wrong. The message is for logs, not for the screen. */
public sealed class SlmrecException(message: String, cause: Throwable?) : Exception(message, cause) {
    /** An argument that is no use: negative, too long. The caller's mistake. */
    public class InvalidArgument internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** A file cannot be opened, read or written. */
    public class File internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The file is not a bundle or pack, or a damaged one. Copy or fetch it again. */
    public class DamagedBundle internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The bundle or pack wants a newer version of this library, or has no model for it. */
    public class UnsupportedBundle internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The history is empty, or the catalog has none of its items. Show popular items instead. */
    public class NoUsableHistory internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** ONNX Runtime is not there, is too old, or is another one than this process has loaded. */
    public class OnnxRuntime internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The execution provider that was asked for is not there or does not start. */
    public class UnavailableProvider internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The engine fails on the model. */
    public class Engine internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The written history state is damaged or of another bundle. Start a new one. */
    public class HistoryState internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The recommender or state was closed before the question. */
    public class Closed internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** The app has no `libslmrec_ffi.so` or JNA for this device, or another version of it. */
    public class NativeLibrary internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)

    /** A fault of the library. The recommender that it happened in answers no more. */
    public class Internal internal constructor(message: String, cause: Throwable? = null) :
        SlmrecException(message, cause)
}
