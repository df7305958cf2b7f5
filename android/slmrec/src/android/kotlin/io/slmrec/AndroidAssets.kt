package io.slmrec

import android.content.Context
import android.os.Build
import android.system.Os
import io.slmrec.internal.BundleFiles
import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/**
 * Opens a bundle that is an asset of the app.
 *
 * It is copied to [Context.getNoBackupFilesDir] once for each version of the app, since the native
 * side opens files: state the bundle's size twice when you plan for storage.
 *
 * @param asset its path under `assets`, for example `student.slmrec`
 * @throws SlmrecException.File where there is no such asset, or no room for its copy.
 */
public suspend fun Recommender.Companion.open(
    context: Context,
    asset: String,
    options: OpenOptions = OpenOptions(),
): Recommender {
    val app = context.applicationContext
    val file = withContext(Dispatchers.IO) {
        switchTelemetryOff()
        val installed = app.packageManager.getPackageInfo(app.packageName, 0).lastUpdateTime
        val files = BundleFiles(File(app.noBackupFilesDir, "slmrec"))
        files.copyOf(asset, installed.toString(16)) { app.assets.open(asset) }
    }
    return open(file, options)
}

/**
 * Official builds of ONNX Runtime collect telemetry unless this variable is set before the library
 * is loaded. Call it first in `Application.onCreate` where something else of the app uses ONNX
 * Runtime; [open] with a context calls it.
 */
public fun switchTelemetryOff() {
    Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)
}

/** What the library needs of the system: 64-bit, or 32-bit ARM. */
public fun isDeviceSupported(): Boolean =
    Build.SUPPORTED_ABIS.any { it == "arm64-v8a" || it == "x86_64" || it == "armeabi-v7a" }
