import test from 'ava'
import { mergeIndex } from '../../../cluster/models/repository-index.js'
import type { IndexEntry, ModelState } from '../../../src/api/schemas.js'
import { ModelConfigSchema } from '../../../src/repository/config.js'
import type { ModelSource, RepositoryProblem } from '../../../src/repository/repository.js'

const config = { ...ModelConfigSchema.parse({}), warmUp: { generatedRuns: 0, samples: [] }, labels: {} }

function known(name: string, version: string, state: ModelState, reason = ''): IndexEntry {
  return { name, version, state, reason }
}

function source(name: string, version: string): ModelSource {
  return { name, version, path: `/models/${name}/${version}/model.onnx`, config }
}

function problem(name: string, version: string | null, reason: string): RepositoryProblem {
  return { name, version, code: 'REPOSITORY_INVALID', reason }
}

test('versions in every state are listed with their own reasons', (t) => {
  const index = mergeIndex(
    [
      known('a', '1', 'READY'),
      known('a', '2', 'READY', 'a new generation is being loaded'),
      known('a', '3', 'UNAVAILABLE', 'it does not compile'),
      known('b', '1', 'LOADING'),
      known('c', '1', 'UNLOADING'),
    ],
    {
      sources: [source('a', '3'), source('a', '1'), source('d', '1')],
      problems: [
        problem('a', '2', 'its model file is missing'),
        problem('a', '3', 'its config is bad'),
        problem('a', '3', 'its folder is bad'),
        problem('a', '4', 'it has no model'),
        problem('e', null, 'it cannot be read'),
      ],
    },
  )
  t.deepEqual(index, [
    known('a', '1', 'READY'),
    known('a', '2', 'READY', 'its model file is missing; a new generation is being loaded'),
    known('a', '3', 'UNAVAILABLE', 'its config is bad; its folder is bad; it does not compile'),
    known('a', '4', 'UNAVAILABLE', 'it has no model'),
    known('b', '1', 'LOADING'),
    known('c', '1', 'UNLOADING'),
    known('d', '1', 'UNAVAILABLE', 'not loaded'),
    known('e', '', 'UNAVAILABLE', 'it cannot be read'),
  ])
})

test('a problem of a whole entry appears once in each known version', (t) => {
  const reason = 'the folder cannot be read'
  t.deepEqual(
    mergeIndex([known('a', '1', 'READY'), known('a', '2', 'UNAVAILABLE', reason)], {
      sources: [],
      problems: [problem('a', null, reason)],
    }),
    [known('a', '1', 'READY', reason), known('a', '2', 'UNAVAILABLE', reason)],
  )
})
