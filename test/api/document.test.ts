import type Router from '@koa/router'
import { createConfig, lintFromString } from '@redocly/openapi-core'
import { Validator } from '@seriousme/openapi-schema-validator'
import test from 'ava'
import { type AdminOptions, adminRouter } from '../../cluster/admin/admin.js'
import { Keyring } from '../../src/access/api-keys.js'
import { componentSchemas } from '../../src/api/components.js'
import { type OpenApiDocument, openApiDocument, type Port, templateOf } from '../../src/api/document.js'
import { ERROR_CATALOGUE, type ErrorCode } from '../../src/errors.js'
import type { ErsiliaContext } from '../../src/ersilia/context.js'
import { ersiliaRoutes } from '../../src/ersilia/routes.js'
import { publicRouter } from '../../src/http/app.js'
import type { HttpContext } from '../../src/http/context.js'

const PORTS = ['public', 'admin'] as const

/** Handlers are registered here and never called. */
const ROUTERS: Readonly<Record<Port, () => Router>> = {
  public: () => {
    const router = publicRouter(
      {
        ...{ hasDocs: true, regions: {}, control: {}, observation: { tracing: null } },
        ...{ defences: { corsOrigins: [], keyring: new Keyring({ keys: null }) }, hostPolicy: {} },
      } as unknown as HttpContext,
      {
        name: 'onecopy',
        version: '0',
      },
    )
    ersiliaRoutes(router, {} as ErsiliaContext)
    return router
  },
  admin: () =>
    adminRouter({
      docsVersion: '0',
      repositoryApi: 'admin',
      keyring: new Keyring({ keys: null }),
    } as unknown as AdminOptions),
}

function documentOf(port: Port): OpenApiDocument {
  return openApiDocument(port, {
    version: '1.2.3',
    hasBundle: true,
    hasSharedMemory: true,
    hasRepository: true,
  })
}

async function complaintsOf(document: OpenApiDocument): Promise<{ schema: string[]; rules: string[] }> {
  const source = JSON.stringify(document)
  const { valid, errors } = await new Validator().validate(JSON.parse(source))
  const problems = await lintFromString({
    source,
    config: await createConfig({ extends: ['recommended-strict'] }),
  })
  return {
    schema: valid ? [] : [JSON.stringify(errors)],
    rules: problems.map(({ ruleId, message, location }) => `${ruleId} ${message} ${location[0]?.pointer}`),
  }
}

for (const port of PORTS) {
  test(`every route of the ${port} port is in its document, and the other way round`, (t) => {
    const registered = ROUTERS[port]().stack.flatMap(({ methods, path }) =>
      methods.filter((method) => method !== 'HEAD').map((method) => `${method} ${templateOf(String(path))}`),
    )
    const documented = Object.entries(documentOf(port).paths).flatMap(([template, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${template}`),
    )
    t.deepEqual(registered.sort(), documented.sort())
  })

  test(`two validators find nothing in the document of the ${port} port`, async (t) => {
    t.deepEqual(await complaintsOf(documentOf(port)), { schema: [], rules: [] })
  })

  test(`in the document of the ${port} port every operation has an id of its own and the server's version stands`, (t) => {
    const { info, paths } = documentOf(port)
    t.is(info.version, '1.2.3')
    const ids = Object.values(paths).flatMap((operations) =>
      Object.values(operations).map(({ operationId }) => operationId),
    )
    t.is(new Set(ids).size, ids.length)
  })
}

test('each of the two validators detects an invalid document', async (t) => {
  const document = JSON.parse(JSON.stringify(documentOf('public')))
  document.paths['/v2'].get.responses['200'].description = 7
  document.paths['/v2/models/{model}/infer'].post.parameters = []
  const { schema, rules } = await complaintsOf(document)
  t.not(schema.length, 0)
  t.true(rules.some((rule) => rule.includes('path-parameters-defined')))
})

test('every possible error of a route is listed with its catalogue status and the common body', (t) => {
  const refusals = PORTS.flatMap((port) =>
    Object.values(documentOf(port).paths).flatMap((operations) =>
      Object.values(operations).flatMap(({ responses }) => Object.entries(responses)),
    ),
  ).filter(([, { headers }]) => headers?.['X-Error-Code'] !== undefined)
  t.true(refusals.length > 50)
  for (const [status, { headers, content }] of refusals) {
    const header = headers?.['X-Error-Code'] as { schema: { enum: ErrorCode[] } } | undefined
    for (const code of header?.schema.enum ?? []) {
      // An option changes the status of a missed deadline to 503; all other errors have one status.
      const statuses = code === 'DEADLINE_EXCEEDED' ? ['504', '503'] : [String(ERROR_CATALOGUE[code].status)]
      t.true(statuses.includes(status), `${code} with ${status}`)
    }
    t.true(JSON.stringify(content).includes('#/components/schemas/Error'))
  }
})

test('infer requests and responses are described by the validation schemas', (t) => {
  const { InferRequest, InferResponse } = componentSchemas()
  t.deepEqual(InferRequest?.required, ['inputs'])
  t.deepEqual(InferResponse?.required, ['model_name', 'model_version', 'outputs'])
  t.is(InferResponse?.additionalProperties, false)
})
