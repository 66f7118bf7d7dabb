/** The output transform of classifiers: the label of the highest score, and optionally the score. */
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import type { Tensor } from '../tensor.js'
import type { Cell, OutputTransform } from './transform.js'

export const LabelOptionsSchema = z.strictObject({
  /** The output with the scores; the default is the model's first output. */
  tensor: z.string().optional(),
  /** Class names, in the order of the scores. */
  labels: z.array(z.string()).min(2),
})

export type LabelOptions = z.output<typeof LabelOptionsSchema>

/** The first column gets the label, an optional second one the score. */
export const label: OutputTransform<LabelOptions> = {
  options: LabelOptionsSchema,
  open({ tensor, labels }, { outputs, columns }) {
    const output = tensor === undefined ? outputs[0] : outputs.find(({ name }) => name === tensor)
    if (output === undefined) {
      const known = outputs.map(({ name }) => name).join(', ')
      throw new OnecopyError(
        'BUNDLE_INVALID',
        `output: no output ${JSON.stringify(tensor)}, the model has ${known}`,
      )
    }
    if (columns.length > 2)
      throw new OnecopyError(
        'BUNDLE_INVALID',
        `output: expected 1 or 2 columns for a label, got ${columns.length}`,
      )
    return {
      outputNames: [output.name],
      decode([scores], row): Cell[] {
        const { data } = scores as Tensor
        let best = row * labels.length
        for (let at = best; at < (row + 1) * labels.length; at++)
          if (Number(data[at]) > Number(data[best])) best = at
        return [labels[best - row * labels.length] ?? null, Number(data[best])].slice(0, columns.length)
      },
    }
  },
}
