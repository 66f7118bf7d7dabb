/** The API's OpenAPI document, and a page of local files on which its routes can be tried. */

import { readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import type Router from '@koa/router'
import { type DocumentFacts, openApiDocument, type Port } from '../../api/document.js'
import { OnecopyError } from '../../errors.js'
import { PACKAGE_ROOT } from '../../installation.js'

const PAGE = join(PACKAGE_ROOT, 'src', 'http', 'docs-page')
/** Copied by `npm run build`. */
const SWAGGER_UI = join(PACKAGE_ROOT, 'dist', 'vendor', 'swagger-ui')

/** By the last part of the path: other files are not read. */
const FILES: ReadonlyMap<string, string> = new Map([
  ['page.js', join(PAGE, 'page.js')],
  ['page.css', join(PAGE, 'page.css')],
  ['swagger-ui-bundle.js', join(SWAGGER_UI, 'swagger-ui-bundle.js')],
  ['swagger-ui.css', join(SWAGGER_UI, 'swagger-ui.css')],
  ['sample-request.json', join(PACKAGE_ROOT, 'models', 'logp', 'sample-request.json')],
])

/** Nothing from other origins, nothing inline; the style sheet of the page contains its icons as data. */
const SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
const CACHE_SECONDS = 300

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown
    throw new OnecopyError('ROUTE_NOT_FOUND', 'a file of the page is missing: run npm run build', {
      cause: thrown,
    })
  }
}

export function documentationRoutes(
  router: Router,
  { port, ...facts }: DocumentFacts & { readonly port: Port },
): void {
  let document: string | undefined
  router.get('/openapi.json', (ctx) => {
    // Created on the first request: most processes get none.
    document ??= JSON.stringify(openApiDocument(port, facts))
    ctx.type = 'application/json'
    ctx.body = document
  })
  router.get('/docs', async (ctx) => {
    // Its files are named relative to its path, so that it works behind any prefix.
    if (ctx.path.endsWith('/')) {
      ctx.redirect('../docs')
      return
    }
    ctx.body = await read(join(PAGE, 'index.html'))
    ctx.type = 'html'
    ctx.set('Content-Security-Policy', SECURITY_POLICY)
  })
  router.get('/docs/:file', async (ctx) => {
    const { file = '' } = ctx.params as { file?: string }
    const path = FILES.get(file)
    if (path === undefined) throw new OnecopyError('ROUTE_NOT_FOUND', `no file ${JSON.stringify(file)}`)
    ctx.body = await read(path)
    ctx.type = extname(file)
    ctx.set('Cache-Control', `max-age=${CACHE_SECONDS}`)
  })
}
