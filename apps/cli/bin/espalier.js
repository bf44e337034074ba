#!/usr/bin/env node
// npm links a command when it installs, and only if its file is there: before the first build.
import "../dist/main.js";
