package io.slmrec

import android.content.Context
import android.content.ContextWrapper
import android.content.res.AssetManager
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

/** The part that knows Android, on the oldest one that the library supports, without a device. */
@RunWith(RobolectricTestRunner::class)
@Config(manifest = Config.NONE, sdk = [24])
class AndroidAssetsTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val copies get() = File(RuntimeEnvironment.getApplication().noBackupFilesDir, "slmrec")

    /** An app whose package has one asset. */
    private fun app(asset: String, bytes: ByteArray): Context {
        val file = folder.newFile("app.apk")
        ZipOutputStream(file.outputStream()).use { zip ->
            // Android takes a package without a manifest for no package.
            for ((name, content) in listOf("AndroidManifest.xml" to ByteArray(0), "assets/$asset" to bytes)) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
                zip.closeEntry()
            }
        }
        val assets = AssetManager::class.java.getDeclaredConstructor().newInstance()
        val add = AssetManager::class.java.getDeclaredMethod("addAssetPath", String::class.java)
        assertTrue("taken", add.invoke(assets, file.path) as Int > 0)
        return object : ContextWrapper(RuntimeEnvironment.getApplication()) {
            override fun getAssets() = assets
            override fun getApplicationContext() = this
        }
    }

    @Test
    fun `a bundle is opened out of the assets, and copied once`() = runBlocking {
        val app = app("films.slmrec", bundle.readBytes())
        val first = Recommender.open(app, "films.slmrec", options).use { it.recommend(history(1), 5) }
        assertEquals(5, first.items.size)
        val copy = copies.walk().single { it.isFile }
        val written = copy.lastModified()
        val again = Recommender.open(app, "films.slmrec", options).use { it.recommend(history(1), 5) }
        assertEquals(first.items, again.items)
        assertEquals(listOf(copy to written), copies.walk().filter { it.isFile }.map { it to it.lastModified() }.toList())
    }

    @Test
    fun `an asset that is not there is a typed error and leaves nothing`() {
        val app = app("films.slmrec", byteArrayOf(1))
        val error = assertThrows(SlmrecException.File::class.java) {
            runBlocking { Recommender.open(app, "books.slmrec", options) }
        }
        assertTrue(error.message, error.message.orEmpty().contains("books.slmrec"))
        assertEquals(emptyList<File>(), copies.walk().filter { it.isFile }.toList())
    }

    @Test
    fun `an asset that is damaged is a typed error`() {
        val app = app("films.slmrec", byteArrayOf(1, 2, 3))
        assertThrows(SlmrecException.DamagedBundle::class.java) {
            runBlocking { Recommender.open(app, "films.slmrec", options) }
        }
    }
}
