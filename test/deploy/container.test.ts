import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { parse } from 'yaml'
import { OPTIONS } from '../../src/config/schema.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { runTool } from '../helpers/tools.js'

const FOLDER = join(PROJECT_ROOT, 'deploy', 'container')
const BASE = join(PROJECT_ROOT, 'deploy', 'kubernetes', 'base', 'deployment.yaml')
const CANNOT_TRY = 77

/** Instructions of a Dockerfile by stage, with continued lines joined. */
function stages(): { readonly word: string; readonly rest: string }[][] {
  const text = readFileSync(join(FOLDER, 'Dockerfile'), 'utf8').replace(/^#.*\n/gm, '')
  const instructions = text
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, word = '', rest = ''] = line.match(/^(\S+)\s+(.*)$/) ?? []
      return { word, rest }
    })
  const found: { word: string; rest: string }[][] = [[]]
  for (const instruction of instructions) {
    if (instruction.word === 'FROM') found.push([])
    found.at(-1)?.push(instruction)
  }
  return found
}

const [globals = [], build = [], last = []] = stages()
const lastOf = (word: string) => last.find((one) => one.word === word)?.rest

test('both stages use a base image pinned to a release that the package supports', (t) => {
  const [, version = ''] =
    globals[0]?.rest.match(/^NODE_IMAGE=docker\.io\/library\/node:(\d+\.\d+\.\d+)-bookworm-slim$/) ?? []
  const { engines } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8'))
  const [, major, minor] = engines.node.match(/^>=(\d+)\.(\d+)$/)
  const [gotMajor = 0, gotMinor = 0] = version.split('.').map(Number)
  t.true(gotMajor > Number(major) || (gotMajor === Number(major) && gotMinor >= Number(minor)), version)
  t.deepEqual([build[0]?.rest, last[0]?.rest], [`${'$'}{NODE_IMAGE} AS build`, `${'$'}{NODE_IMAGE}`])
})

test('the last stage installs nothing, sets the locale, and runs as the user of the manifests', (t) => {
  const run = last.filter(({ word }) => word === 'RUN').map(({ rest }) => rest)
  t.notRegex(run.join('\n'), /apt|npm|curl|wget/)
  t.true(last.some(({ word, rest }) => word === 'COPY' && rest.includes('/usr/lib/locale/en_US.utf8')))
  const { template } = parse(readFileSync(BASE, 'utf8')).spec
  const { runAsUser, runAsGroup } = template.spec.securityContext
  t.is(lastOf('USER'), `${runAsUser}:${runAsGroup}`)
  const [container] = template.spec.containers
  const { version } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8'))
  t.is(container.image, `onecopy:${version}`)
  t.true(lastOf('LABEL')?.includes(`image.version="${version}"`))
  // 8001 is the gRPC port of the manifests; gRPC is off unless it is set.
  t.is(lastOf('EXPOSE'), `${OPTIONS.port.default()} 8001 ${OPTIONS.adminPort.default()}`)
  t.is(lastOf('ENTRYPOINT'), '["node", "/app/dist/cluster/main.js"]')
})

test('the last stage has the files of the package that are not compiled', (t) => {
  const { files } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
    files: string[]
  }
  const sources = files.filter((name) => name.startsWith('src/'))
  t.true(sources.length > 0)
  const copied = last.filter(({ word }) => word === 'COPY').map(({ rest }) => rest.split(/\s+/).at(-1) ?? '')
  for (const name of sources)
    t.true(
      copied.some((folder) => `/app/${name}`.startsWith(folder)),
      name,
    )
})

test('the build context contains exactly what the build copies', (t) => {
  const given = readFileSync(join(FOLDER, 'Dockerfile.dockerignore'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1))
  const copied = build
    .filter(({ word }) => word === 'COPY')
    .flatMap(({ rest }) => rest.split(/\s+/).slice(0, -1))
  t.deepEqual([...given].sort(), [...copied].sort())
  const there = readdirSync(PROJECT_ROOT)
  for (const name of given) t.true(there.includes(name), name)
})

const TITLE = 'the image builds, is small, serves with a read-only root, and drains on SIGTERM'
if (process.env.ONECOPY_TRY_CONTAINER === '1')
  test(TITLE, (t) => {
    t.timeout(15 * 60_000)
    const { code, output } = runTool(join(FOLDER, 'try.sh'), [])
    if (code === CANNOT_TRY) t.log(output.trim())
    t.true(code === 0 || code === CANNOT_TRY, output)
  })
else test.skip(`${TITLE} (skipped: takes minutes, enable with ONECOPY_TRY_CONTAINER=1)`, () => {})
