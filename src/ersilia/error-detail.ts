/** The bodies of Ersilia's errors, as FastAPI makes them. */
import type { OnecopyError } from '../errors.js'
import { InvalidInput } from './request.js'

const PHRASES: Readonly<Record<string, string>> = {
  ROUTE_NOT_FOUND: 'Not Found',
  METHOD_NOT_ALLOWED: 'Method Not Allowed',
}

export function detailOf(error: OnecopyError): { readonly detail: unknown } {
  return { detail: error instanceof InvalidInput ? error.issues : error.message }
}

/** Routes that only a bundle has. */
const OWN_PATH = /^\/(run|job|card|models|healthz|redoc)(\/|$)/

/**
 * The body of an error that no route of a bundle has answered: a path or a method that there is not. Null where the path is
 * the protocol's. A server that was started for a bundle speaks so of every other path too.
 */
export function pathlessDetail(
  path: string,
  error: OnecopyError,
  { isRequired }: { readonly isRequired: boolean },
): { readonly detail: string } | null {
  const phrase = PHRASES[error.code]
  const isTheirs = OWN_PATH.test(path) || (isRequired && !/^\/v2(\/|$)/.test(path))
  return phrase !== undefined && isTheirs ? { detail: phrase } : null
}
