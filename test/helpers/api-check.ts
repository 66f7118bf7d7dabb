/**
 * Checks responses against the OpenAPI document. Every response that a test gets through fetch or
 * node:http is looked up by method, path and status; its headers and body must match. A response
 * that the document does not define is an error.
 */
import { gunzipSync, inflateSync } from 'node:zlib'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import {
  type OpenApiDocument,
  type OpenApiResponse,
  openApiDocument,
  type Port,
} from '../../src/api/document.js'
import { ERROR_CATALOGUE, isErrorCode } from '../../src/errors.js'

export interface CheckedAnswer {
  readonly method: string
  /** With or without a query. */
  readonly path: string
  readonly status: number
  /** Header names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

const DOCUMENTS: Readonly<Record<Port, OpenApiDocument>> = {
  public: openApiDocument('public', {
    version: '0.0.0',
    hasBundle: true,
    hasSharedMemory: true,
    hasRepository: true,
  }),
  admin: openApiDocument('admin', {
    version: '0.0.0',
    hasBundle: false,
    hasSharedMemory: false,
    hasRepository: true,
  }),
}
/** Routes that are always there; a 404 says that another is not. */
const ALWAYS = openApiDocument('public', {
  ...{ version: '0.0.0', hasBundle: true, hasSharedMemory: false, hasRepository: false },
}).paths
/** Said below the routes, so on paths that are none as well. */
const BELOW_ROUTES = [
  ...['REQUEST_MALFORMED', 'REQUEST_TIMEOUT', 'HEADERS_TOO_LARGE', 'INTERNAL'],
  ...['UNAUTHORIZED', 'FORBIDDEN', 'RATE_LIMITED', 'CONCURRENCY_LIMITED'],
]

// Stops at the first error: a large tensor could have thousands.
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true })
ajv.addKeyword('components')
const validators: Readonly<Record<Port, WeakMap<object, ValidateFunction>>> = {
  public: new WeakMap(),
  admin: new WeakMap(),
}

/** Schemas refer to components of the document. */
function validatorOf(schema: object, port: Port): ValidateFunction {
  let validate = validators[port].get(schema)
  if (validate === undefined) {
    validate = ajv.compile({ ...schema, components: DOCUMENTS[port].components })
    validators[port].set(schema, validate)
  }
  return validate
}

/** Compiles the validators in advance, so that this does not slow down a test. */
export function prepareChecks(port: Port): void {
  for (const operations of Object.values(DOCUMENTS[port].paths))
    for (const { responses } of Object.values(operations))
      for (const { content } of Object.values(responses)) {
        const { schema } = content?.['application/json'] ?? {}
        if (schema !== undefined) validatorOf(schema, port)
      }
}

/** Why `value` does not match `schema`; null if it does. */
function mismatch(schema: object, value: unknown, port: Port): string | null {
  const validate = validatorOf(schema, port)
  return validate(value) ? null : ajv.errorsText(validate.errors, { dataVar: 'body' })
}

interface Template {
  readonly template: string
  readonly pattern: RegExp
}

/** Templates with fewer placeholders first: they take precedence, as in the router. */
function templatesOf(port: Port): Template[] {
  const placeholders = (template: string) => template.split('{').length
  return Object.keys(DOCUMENTS[port].paths)
    .sort((a, b) => placeholders(a) - placeholders(b))
    .map((template) => {
      const pattern = template.replace(/[.]/g, '\\.').replace(/\{\w+\}/g, '[^/]+')
      const end = template === '/' ? '' : '/?'
      return { template, pattern: new RegExp(`^${pattern}${end}(?:\\?.*)?$`) }
    })
}

const TEMPLATES: Readonly<Record<Port, Template[]>> = {
  public: templatesOf('public'),
  admin: templatesOf('admin'),
}

/** The template that matches a path. */
function templateFor(path: string, port: Port): string | null {
  return TEMPLATES[port].find(({ pattern }) => pattern.test(path))?.template ?? null
}

function asJson(bytes: Uint8Array): unknown {
  return JSON.parse(Buffer.from(bytes).toString('utf8'))
}

/**
 * Bundles and routes for texts have their own form also for paths and methods that do not exist.
 */
const ERROR = {
  anyOf: ['Error', 'ErrorDetail', 'OpenAiError', 'TextError'].map((name) => ({
    $ref: `#/components/schemas/${name}`,
  })),
}

/** An error response: body, code and status must be consistent. */
function errorProblem(
  { method, status, headers, body }: CheckedAnswer,
  codes: readonly string[] | null,
): string | null {
  const code = headers['x-error-code'] ?? ''
  if (!isErrorCode(code)) return `X-Error-Code ${JSON.stringify(code)} is not in the catalogue`
  if (codes !== null && !codes.includes(code)) return `expected one of ${codes}, got ${code}`
  const isRequestedDeadlineStatus = code === 'DEADLINE_EXCEEDED' && status === 503
  if (ERROR_CATALOGUE[code].status !== status && !isRequestedDeadlineStatus)
    return `${code} is not a ${status}`
  return method === 'HEAD' ? null : mismatch(ERROR, asJson(body), 'public')
}

function headerProblem(answer: CheckedAnswer, { headers = {} }: OpenApiResponse, port: Port): string | null {
  for (const [name, header] of Object.entries(headers)) {
    const value = answer.headers[name.toLowerCase()]
    const { schema, required } = header as { schema: object; required?: boolean }
    if (value === undefined) {
      if (required === true) return `${name} is missing`
      continue
    }
    const problem = mismatch(schema, value, port)
    if (problem !== null) return `${name}: ${problem}`
  }
  return null
}

interface Content {
  readonly schema?: object
}

/** The JSON before binary tensors; the number of bytes that follow must match it. */
function binaryProblem({ headers, body }: CheckedAnswer, json: Content, port: Port): string | null {
  const jsonBytes = Number(headers['inference-header-content-length'])
  const head = asJson(body.subarray(0, jsonBytes))
  const problem = mismatch(json.schema ?? {}, head, port)
  if (problem !== null) return problem
  const { outputs } = head as { outputs: { parameters?: { binary_data_size?: number } }[] }
  const announced = outputs.reduce((sum, { parameters }) => sum + (parameters?.binary_data_size ?? 0), 0)
  return announced === body.length - jsonBytes
    ? null
    : `${announced} bytes of tensors declared, ${body.length - jsonBytes} present`
}

function bodyProblem(answer: CheckedAnswer, response: OpenApiResponse, port: Port): string | null {
  const { body, headers } = answer
  const { content } = response
  if (content === undefined) return body.length === 0 ? null : `expected no body, got ${body.length} bytes`
  const type = headers['content-type']?.replace(/;.*$/, '') ?? ''
  const media = content[type] ?? content['*/*']
  if (media === undefined) return `expected ${Object.keys(content)}, got ${JSON.stringify(type)}`
  const json = content['application/json']
  const isTensors = response.headers?.['Inference-Header-Content-Length'] !== undefined
  if (type === 'application/octet-stream' && json !== undefined && isTensors)
    return binaryProblem(answer, json, port)
  return type === 'application/json' ? mismatch(media.schema ?? {}, asJson(body), port) : null
}

function problemOf(answer: CheckedAnswer, port: Port): string | null {
  const { path, status } = answer
  const document = DOCUMENTS[port]
  const template = templateFor(path, port)
  if (template === null) return errorProblem(answer, ['ROUTE_NOT_FOUND', ...BELOW_ROUTES])
  const method = answer.method === 'HEAD' ? 'get' : answer.method.toLowerCase()
  const operation = document.paths[template]?.[method]
  if (operation === undefined) {
    if (method === 'options' && status < 300) return null
    if (status === 405 && !answer.headers.allow) return 'a 405 without Allow'
    // Routes that are not always there say so.
    const mayBeMissing =
      !(template in ALWAYS) || JSON.stringify(document.paths[template]).includes('ROUTE_NOT_FOUND')
    const codes = ['METHOD_NOT_ALLOWED', ...(mayBeMissing ? ['ROUTE_NOT_FOUND'] : []), ...BELOW_ROUTES]
    return errorProblem(answer, codes)
  }
  if (answer.headers['x-error-code'] === 'ROUTE_NOT_FOUND' && !(template in ALWAYS))
    return errorProblem(answer, ['ROUTE_NOT_FOUND'])
  const response = operation.responses[String(status)]
  if (response === undefined) return `expected one of ${Object.keys(operation.responses)}`
  const problem = headerProblem(answer, response, port)
  if (problem !== null || answer.method === 'HEAD') return problem
  return bodyProblem(answer, response, port)
}

function decompressed(answer: CheckedAnswer): CheckedAnswer {
  const encoding = answer.headers['content-encoding']
  if (encoding === 'gzip') return { ...answer, body: gunzipSync(answer.body) }
  return encoding === 'deflate' ? { ...answer, body: inflateSync(answer.body) } : answer
}

/** The problem of a response, or null; `body` is the raw body. */
export function answerProblem(answer: CheckedAnswer, port: Port): string | null {
  const summary = `${answer.method} ${answer.path} on the ${port} port returned ${answer.status}`
  try {
    const problem = problemOf(answer.method === 'HEAD' ? answer : decompressed(answer), port)
    return problem === null ? null : `${summary}: ${problem}`
  } catch (thrown) {
    return `${summary}: ${thrown}`
  }
}

/**
 * The same for a response to bytes that may not be a request: only what all errors have in common.
 */
export function rawErrorProblem(answer: Omit<CheckedAnswer, 'method' | 'path'>): string | null {
  if (answer.headers['x-error-code'] === undefined) return null
  try {
    return errorProblem({ ...answer, method: '', path: '' }, null)
  } catch (thrown) {
    return String(thrown)
  }
}
