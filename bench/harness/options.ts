/** Numbers on a bench's command line. */

/** @throws Error that names the option. */
export function positive(name: string, text: string): number {
  const value = Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new Error(`expected --${name} to be a positive number, got ${JSON.stringify(text)}`)
}

/** @throws Error that names the option. */
export function count(name: string, text: string, minimum = 1): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= minimum) return value
  throw new Error(`expected --${name} to be an integer from ${minimum}, got ${JSON.stringify(text)}`)
}
