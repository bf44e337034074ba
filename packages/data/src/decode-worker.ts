/** @file The worker that decodes images; see folder-samples.ts. */
import { serve } from "@espalier/base";
import { decodeBatch } from "./folder-samples.ts";

serve(decodeBatch);
