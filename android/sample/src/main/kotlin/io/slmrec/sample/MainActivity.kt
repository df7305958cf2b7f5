package io.slmrec.sample

import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.compose.foundation.clickable
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.layout.safeDrawingPadding
import androidx.compose.foundation.lazy.LazyColumn
import androidx.compose.foundation.lazy.items
import androidx.compose.material3.HorizontalDivider
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.collectAsState
import androidx.compose.runtime.getValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.dp

/** A list of films; tap one that you have seen, and the list moves. */
class MainActivity : ComponentActivity() {
    private lateinit var films: Films

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        films = Films(applicationContext, savedInstanceState?.getByteArray(STATE))
        setContent {
            MaterialTheme {
                val screen by films.screen.collectAsState()
                Screen(screen, onTap = films::take)
            }
        }
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putByteArray(STATE, films.written)
    }

    override fun onDestroy() {
        films.close()
        super.onDestroy()
    }

    private companion object {
        const val STATE = "history"
    }
}

@Composable
private fun Screen(screen: Films.Screen, onTap: (String) -> Unit) {
    Column(Modifier.safeDrawingPadding().padding(16.dp)) {
        Text(screen.headline, style = MaterialTheme.typography.titleMedium)
        HorizontalDivider(Modifier.padding(vertical = 8.dp))
        LazyColumn {
            items(screen.films, key = { it.id }) { film ->
                Text(
                    film.title,
                    Modifier.fillMaxWidth().clickable { onTap(film.id) }.padding(12.dp),
                )
            }
        }
    }
}
