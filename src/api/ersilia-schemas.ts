/** The JSON of the routes that an Ersilia bundle brings. */
import * as z from 'zod'

const cell = z.union([z.number(), z.string(), z.null()])
const byColumn = z.record(z.string(), cell)

/** What went wrong, as FastAPI says it: a sentence, and for what cannot be taken a list of what is wrong where. */
export const errorDetailSchema = z
  .strictObject({
    detail: z.union([
      z.string().min(1),
      z.array(
        z.looseObject({
          loc: z.array(z.union([z.string(), z.int()])),
          msg: z.string(),
          type: z.string(),
        }),
      ),
    ]),
  })
  .describe('What went wrong, for people.')

export const moleculesSchema = z
  .array(z.union([z.string(), z.looseObject({ key: z.string(), input: z.string() })]))
  .describe('SMILES, or objects with a `key` and an `input`.')

export const moleculeRowsSchema = z
  .union([
    z.array(byColumn).describe('records'),
    z.array(z.array(cell)).describe('values'),
    z
      .strictObject({
        columns: z.array(z.string()),
        index: z.array(z.string()),
        data: z.array(z.array(cell)),
      })
      .describe('split'),
    z.record(z.string(), byColumn).describe('columns and index'),
  ])
  .describe('A row for every molecule, laid out as `orient` says.')

export const textListSchema = z.array(z.string())
export const bundleNameSchema = z.record(z.string(), z.string())
export const cardSchema = z
  .record(z.string(), z.unknown())
  .describe("Metadata of the model, by Ersilia's names.")

const jobStatus = z.enum(['pending', 'completed', 'failed'])
export const jobSubmittedSchema = z.strictObject({ job_id: z.string(), message: z.string() })
export const jobStatusSchema = z.strictObject({ job_id: z.string(), status: jobStatus })
export const jobResultSchema = z
  .union([z.strictObject({ job_id: z.string(), status: jobStatus, result: z.null() }), moleculeRowsSchema])
  .describe('The rows, or the status where there are none yet.')
export const jobsResetSchema = z.strictObject({ message: z.string() })

export const bundleStatusSchema = z.array(
  z.strictObject({
    modelName: z.string(),
    modelVersion: z.string(),
    runtime: z.string(),
    minWorkers: z.int(),
    maxWorkers: z.int(),
    maxBatchSize: z.int(),
    maxBatchDelay: z.int(),
    loadedAtStartup: z.boolean(),
    workers: z.array(
      z.strictObject({
        id: z.string(),
        startTime: z.string(),
        status: z.literal('READY'),
        memoryUsage: z.number().describe('MB.'),
        pid: z.int(),
      }),
    ),
  }),
)

export const bundleHealthSchema = z.strictObject({
  breaker: z.strictObject({
    state: z.enum(['closed', 'open', 'half-open']),
    failures: z.int(),
    last_failure: z.number().nullable().describe('Seconds since 1970.'),
    reset_timeout: z.number().describe('Seconds.'),
    next_reset: z.number().nullable().describe('Seconds since 1970.'),
  }),
  system: z.strictObject({ cpu: z.number(), memory: z.number() }).describe('Percent.'),
})
