/** Describes the bundle of a serving process. */
import * as z from 'zod'

/** The bundle that a process serves. Sent to the workers as a message. */
export const MountedBundleSchema = z.object({
  path: z.string(),
  /** The model that serves it; null if its run.sh does. */
  modelName: z.string().nullable(),
  /**
   * Whether the bundle was configured explicitly: then startup requires it. Otherwise its first request opens
   * it.
   */
  isRequired: z.boolean(),
})

export type MountedBundle = z.infer<typeof MountedBundleSchema>
