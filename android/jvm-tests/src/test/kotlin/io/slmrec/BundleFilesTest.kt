package io.slmrec

import io.slmrec.internal.BundleFiles
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Path
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

class BundleFilesTest {
    @TempDir
    lateinit var folder: Path

    private val files get() = BundleFiles(File(folder.toFile(), "slmrec"))

    private fun names() = File(folder.toFile(), "slmrec").let { root ->
        root.walk().filter { it.isFile }.map { it.relativeTo(root).path }.sorted().toList()
    }

    @Test
    fun `a copy is made once for each version of the app`() {
        var opened = 0
        fun copy(key: String) = files.copyOf("models/student.slmrec", key) {
            opened += 1
            byteArrayOf(1, 2, 3).inputStream()
        }
        val first = copy("a")
        assertArrayEquals(byteArrayOf(1, 2, 3), first.readBytes())
        assertEquals(first, copy("a"))
        assertEquals(1, opened)
        copy("b")
        assertEquals(2, opened)
        assertEquals(listOf("models_student.slmrec/b.slmrec"), names())
    }

    @Test
    fun `a source that breaks off leaves nothing, and the next try succeeds`() {
        val broken = object : InputStream() {
            var left = 100_000
            override fun read(): Int = if (left-- > 0) 7 else throw IOException("broke off")
        }
        val error = assertThrows(SlmrecException.File::class.java) {
            files.copyOf("student.slmrec", "a") { broken }
        }
        assertEquals("student.slmrec: broke off", error.message)
        assertEquals(emptyList<String>(), names())
        files.copyOf("student.slmrec", "a") { byteArrayOf(1).inputStream() }
        assertEquals(listOf("student.slmrec/a.slmrec"), names())
    }

    @Test
    fun `bundles of different names stand beside each other`() {
        for (name in listOf("films.slmrec", "my-films.slmrec")) {
            files.copyOf(name, "a") { name.byteInputStream() }
        }
        assertEquals(listOf("films.slmrec/a.slmrec", "my-films.slmrec/a.slmrec"), names())
    }
}
