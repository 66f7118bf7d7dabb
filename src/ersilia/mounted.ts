/** What a serving process is told about the bundle that it serves. */
import { z } from 'zod'

/** Which bundle a process serves. Crosses to the workers as a message. */
export const MountedBundleSchema = z.object({
  path: z.string(),
  /** The model that answers for it; null where its run.sh does. */
  modelName: z.string().nullable(),
  /** Whether it was asked for: then there is no serving without it; else its first request opens it. */
  isRequired: z.boolean(),
})

export type MountedBundle = z.infer<typeof MountedBundleSchema>
