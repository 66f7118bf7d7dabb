/**
 * The reference to a stats page in a message of another process; apart from the page, which threads without
 * such messages open.
 */
import * as z from 'zod'
import type { StatsPageReference } from './page.js'

export const StatsPageReferenceSchema = z.object({
  path: z.string(),
  slots: z.int().positive(),
  cellsPerSlot: z.int().positive(),
}) satisfies z.ZodType<StatsPageReference>
