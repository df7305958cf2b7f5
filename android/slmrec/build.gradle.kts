import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "io.slmrec"
    compileSdk = 36

    defaultConfig {
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
    }

    sourceSets["main"].kotlin.srcDirs("src/main/kotlin", "src/android/kotlin")
    sourceSets["main"].jniLibs.srcDir(layout.buildDirectory.dir("rust"))

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
}

kotlin {
    // Not strict: the generated bindings do not say `public`.
    explicitApiWarning()
    compilerOptions.jvmTarget.set(JvmTarget.JVM_17)
}

dependencies {
    api(libs.coroutines.core)
    implementation(variantOf(libs.jna) { artifactType("aar") })
    // Brings libonnxruntime.so, which the Rust library loads by its name.
    implementation(libs.onnxruntime)
}

/** ABIs that the library is built for; 32-bit x86 has no devices. */
val abis = listOf("arm64-v8a", "x86_64", "armeabi-v7a")

/** Needs cargo-ndk, an Android NDK and the Rust targets: see android/README.md. */
val buildRust by tasks.registering(Exec::class) {
    workingDir = rootDir.parentFile
    environment("CARGO_TARGET_DIR", layout.buildDirectory.dir("cargo").get().asFile.path)
    // Pages of 16 KB, which Android 15 and Google Play want; NDK 28 and newer do it by themselves.
    environment("RUSTFLAGS", "-C link-arg=-Wl,-z,max-page-size=16384")
    commandLine(
        listOf("cargo", "ndk", "--platform", "24") +
            abis.flatMap { listOf("--target", it) } +
            listOf("--output-dir", layout.buildDirectory.dir("rust").get().asFile.path) +
            listOf("build", "--locked", "--package", "slmrec-ffi", "--profile", "mobile"),
    )
}

// The libraries change whenever Rust sources do; cargo knows best whether anything is to be done.
tasks.named("preBuild") { dependsOn(buildRust) }
