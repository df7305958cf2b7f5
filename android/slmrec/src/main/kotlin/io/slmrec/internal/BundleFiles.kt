package io.slmrec.internal

import io.slmrec.SlmrecException
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream

/**
 * Copies of bundles that come as streams, since the native side opens files: a folder for each
 * name, in it one copy, made anew when its key changes.
 *
 * A copy is written beside its place, brought to the disk and renamed, so that there is a whole one
 * or none, whenever the app is killed.
 */
internal class BundleFiles(private val folder: File) {
    /**
     * The copy of a bundle, made now where it is not there. Older copies are removed; who has one
     * open keeps it.
     */
    fun copyOf(name: String, key: String, source: () -> InputStream): File = try {
        val own = File(folder, name.replace('/', '_'))
        val copy = File(own, "$key.slmrec")
        if (!copy.isFile) {
            own.mkdirs()
            write(copy, source)
        }
        own.listFiles { file -> file != copy }?.forEach { it.delete() }
        copy
    } catch (error: IOException) {
        throw SlmrecException.File("$name: ${error.message}", error)
    }

    private fun write(copy: File, source: () -> InputStream) {
        val temporary = File.createTempFile("copy", ".partial", copy.parentFile)
        try {
            FileOutputStream(temporary).use { out ->
                source().use { it.copyTo(out) }
                out.fd.sync()
            }
            if (!temporary.renameTo(copy)) {
                throw IOException("cannot be renamed to $copy")
            }
        } finally {
            temporary.delete()
        }
    }
}
