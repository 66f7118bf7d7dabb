/** The definition of an option, and schemas that several options share. */
import { isIPv6 } from 'node:net'
import { resolve } from 'node:path'
import * as z from 'zod'

/** In the order of the help text. */
export const OPTION_GROUPS = [
  'Models',
  'Network',
  'Access',
  'TLS',
  'Processes',
  'Memory',
  'Limits',
  'Logs and metrics',
] as const
type OptionGroup = (typeof OPTION_GROUPS)[number]

export interface Option<Schema extends z.ZodType> {
  readonly schema: Schema
  /** Placeholder in the help text. */
  readonly value: string
  readonly help: string
  readonly group: OptionGroup
  /** `default` is the value as a user would write it; `defaultHelp` replaces it in the help text. */
  readonly default: () => string | number
  readonly defaultHelp?: string
  /** A flag without a value: `--access-log`, `--no-access-log`. */
  readonly isSwitch?: true
  /** Values of a repeated flag are joined with commas. */
  readonly isList?: true
}

export function option<Schema extends z.ZodType>(definition: Option<Schema>): Option<Schema> {
  return definition
}

export const text = z.string().min(1)

/** An address or a host name; brackets around an IPv6 address are optional. */
export const hostAddress = text.transform((value, context) => {
  const bare = /^\[(.*)\]$/.exec(value)?.[1] ?? value
  // Only IPv6 addresses have brackets and colons; the port is a separate option.
  if (isIPv6(bare) || !/[[\]:/\s]/.test(value)) return bare
  context.addIssue({
    code: 'custom',
    message: `expected an address or a host name without a port, such as 127.0.0.1 or ::1, got ${JSON.stringify(value)}`,
  })
  return z.NEVER
})

export const path = text.transform((value) => resolve(value))

/** Empty means not configured. */
export const optionalPath = z.string().transform((value) => (value === '' ? '' : resolve(value)))

export function integer(minimum: number, maximum: number) {
  return z.union([z.string(), z.number()]).transform((value, context) => {
    const number = typeof value === 'string' && !/^\d+$/.test(value) ? Number.NaN : Number(value)
    if (Number.isInteger(number) && number >= minimum && number <= maximum) return number
    context.addIssue({
      code: 'custom',
      message: `expected an integer from ${minimum} to ${maximum}, got ${JSON.stringify(value)}`,
    })
    return z.NEVER
  })
}
