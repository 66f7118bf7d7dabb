import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { openApiDocument } from '../../src/api/document.js'
import { BrowserPage, testInBrowser } from '../helpers/browser.js'
import { startServer, stopCleanly } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const { version } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
  version: string
}

test('each port serves its document and a page that loads nothing from other origins', async (t) => {
  const { server, url, adminUrl } = await startServer(t, { args: ['--workers', '1'] })
  for (const [base, port] of [
    [url, 'public'],
    [adminUrl, 'admin'],
  ] as const) {
    const document = await fetch(`${base}/openapi.json`)
    t.deepEqual(
      await document.json(),
      JSON.parse(
        JSON.stringify(
          openApiDocument(port, {
            ...{ version, hasBundle: true, hasSharedMemory: false, hasRepository: port === 'admin' },
          }),
        ),
      ),
    )

    const page = await fetch(`${base}/docs`)
    t.regex(page.headers.get('Content-Type') ?? '', /^text\/html/)
    t.regex(page.headers.get('Content-Security-Policy') ?? '', /default-src 'self'/)
    t.notRegex(page.headers.get('Content-Security-Policy') ?? '', /unsafe|http/)
    const html = await page.text()
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file = '']) => file)
    t.true(files.includes('docs/swagger-ui-bundle.js'))
    for (const file of files.filter((one) => one !== 'data:,')) {
      const response = await fetch(new URL(file, `${base}/docs`))
      t.is(response.status, 200, `${file}: npm run build copies what the page needs`)
      t.regex(response.headers.get('Content-Type') ?? '', file.endsWith('.css') ? /^text\/css/ : /javascript/)
    }
    t.notRegex(html, /<script>|<style>|style=|https?:/)
    // Not followed, so that the redirect itself is compared with the document.
    const redirect = await fetch(`${base}/docs/`, { redirect: 'manual' })
    t.is(redirect.status, 302)
    t.is(new URL(redirect.headers.get('Location') ?? '', `${base}/docs/`).href, `${base}/docs`)
    for (const file of ['package.json', '..%2f..%2fpackage.json', 'toString']) {
      const response = await fetch(`${base}/docs/${file}`)
      t.is(response.status, 404)
      t.is(response.headers.get('Cache-Control'), 'no-store')
    }
  }
  await stopCleanly(t, server)
})

test('without documentation neither port serves it', async (t) => {
  const { server, url, adminUrl } = await startServer(t, { args: ['--workers', '1', '--docs', 'off'] })
  for (const base of [url, adminUrl]) {
    for (const path of ['/openapi.json', '/docs', '/docs/page.js'])
      t.is((await fetch(`${base}${path}`)).status, 404, path)
    t.is((await fetch(`${base}/v2/health/ready`)).status, 200)
  }
  await stopCleanly(t, server)
})

test('the package contains every file that the page needs', (t) => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const [packed] = JSON.parse(
    execFileSync('npm', args, { cwd: PROJECT_ROOT, encoding: 'utf8', stdio: 'pipe' }),
  )
  const paths = new Set((packed.files as { path: string }[]).map(({ path }) => path))
  for (const path of [
    'src/http/docs-page/index.html',
    'src/http/docs-page/page.css',
    'src/http/docs-page/page.js',
    'dist/vendor/swagger-ui/LICENSE',
    'dist/vendor/swagger-ui/swagger-ui-bundle.js',
    'dist/vendor/swagger-ui/swagger-ui.css',
    'models/logp/sample-request.json',
  ])
    t.true(paths.has(path), path)
})

testInBrowser('the page can run the built-in model, and the browser reports no errors', async (t) => {
  const { server, url, adminUrl } = await startServer(t, { args: ['--workers', '1'] })
  const page = await BrowserPage.open(t, `${url}/docs#/inference/infer`)
  const section = `document.querySelector('#operations-inference-infer')`
  const sample = await page.until<string>(`${section}?.querySelector('textarea')?.value`)
  const file = readFileSync(join(PROJECT_ROOT, 'models', 'logp', 'sample-request.json'), 'utf8')
  t.deepEqual(JSON.parse(sample), JSON.parse(file))
  t.is(await page.until(`${section}.querySelector('select').value`), 'logp')
  await page.evaluate(`${section}.querySelector('.execute').click()`)
  const answer = await page.until<string>(
    `${section}.querySelector('.live-responses-table pre')?.textContent`,
  )
  t.is(JSON.parse(answer).outputs[0].data[0].toFixed(2), '1.40')
  t.deepEqual(page.complaints, [])

  const admin = await BrowserPage.open(t, `${adminUrl}/docs`)
  await admin.until(`document.body.innerText.includes('/v2/repository/models/{model}/load')`)
  t.deepEqual(admin.complaints, [])
  await stopCleanly(t, server)
})
