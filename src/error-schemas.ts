/**
 * Schemas of errors in messages of another process or thread. They are apart from the errors themselves so
 * that an inference thread, which reads no such message, does not load the library of schemas: 6 MB in each
 * worker.
 */
import * as z from 'zod'
import { type ErrorCode, isErrorCode, type OutOfService } from './errors.js'

export const ErrorCodeSchema = z.custom<ErrorCode>((code) => typeof code === 'string' && isErrorCode(code))

export const OutOfServiceSchema = z.object({
  code: ErrorCodeSchema,
  reason: z.string(),
  retryAfterSeconds: z.int().positive(),
  untilMs: z.number().optional(),
  isQueueKept: z.boolean().optional(),
}) satisfies z.ZodType<OutOfService>
