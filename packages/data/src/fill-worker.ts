/** @file The worker that fills augmented batches; see image-samples.ts. */
import { serve } from "@espalier/base";
import { fillPlaced } from "./image-samples.ts";

serve(fillPlaced);
