/** All transforms by their names in manifests. */
import * as z from 'zod'
import { label } from './label.js'
import { morgan } from './morgan.js'
import { numbers } from './numbers.js'
import { smilesTokens } from './smiles-tokens.js'
import { tokenizer } from './tokenizer.js'
import type { InputTransform, OutputTransform } from './transform.js'
import { values } from './values.js'

export const INPUT_TRANSFORMS = { morgan, 'smiles-tokens': smilesTokens, tokenizer, numbers } as const
export const OUTPUT_TRANSFORMS = { values, label } as const

type Options<T> = T extends { readonly options: z.ZodType<infer O> } ? O : never

/** A transform as configured in a manifest: its kind and the options of that kind. */
export type InputChoice = {
  [Kind in keyof typeof INPUT_TRANSFORMS]: {
    readonly kind: Kind
    readonly options: Options<(typeof INPUT_TRANSFORMS)[Kind]>
  }
}[keyof typeof INPUT_TRANSFORMS]
export type OutputChoice = {
  [Kind in keyof typeof OUTPUT_TRANSFORMS]: {
    readonly kind: Kind
    readonly options: Options<(typeof OUTPUT_TRANSFORMS)[Kind]>
  }
}[keyof typeof OUTPUT_TRANSFORMS]

/** Parses `{"kind": "morgan", "radius": 2}` to `{kind: 'morgan', options: {radius: 2, ...}}`. */
function choiceSchema<Choice>(kinds: Record<string, { readonly options: z.ZodType }>): z.ZodType<Choice> {
  return z.looseObject({ kind: z.string() }).transform(({ kind, ...options }, context) => {
    const transform = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined
    if (transform === undefined) {
      const known = Object.keys(kinds).join(', ')
      context.addIssue({
        code: 'custom',
        path: ['kind'],
        message: `expected one of ${known}, got ${JSON.stringify(kind)}`,
      })
      return z.NEVER
    }
    const parsed = transform.options.safeParse(options)
    if (parsed.success) return { kind, options: parsed.data } as Choice
    for (const { path, message } of parsed.error.issues) context.addIssue({ code: 'custom', path, message })
    return z.NEVER
  })
}

export const InputChoiceSchema = choiceSchema<InputChoice>(INPUT_TRANSFORMS)
export const OutputChoiceSchema = choiceSchema<OutputChoice>(OUTPUT_TRANSFORMS)

/** The schema above guarantees that the options match the kind. */
export function inputTransform({ kind }: InputChoice): InputTransform {
  return INPUT_TRANSFORMS[kind] as InputTransform
}

export function outputTransform({ kind }: OutputChoice): OutputTransform {
  return OUTPUT_TRANSFORMS[kind] as OutputTransform
}
