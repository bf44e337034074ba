/** @file The worker that fills augmented batches; see image-samples.ts. */
import { serve } from "./background.ts";
import { fillPlaced } from "./image-samples.ts";

serve(fillPlaced);
