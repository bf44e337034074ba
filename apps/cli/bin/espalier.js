#!/usr/bin/env -S MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_ARENA_MAX=1 node --no-incremental-marking
// Large arrays are kept for the next step once they are free (docs/decisions/033), and garbage is collected
// between computations (034).
// npm links a command when it installs, and only if its file is there: before the first build.
import "../dist/main.js";
