/** Routes for texts, on models that come with a tokenizer. Each API's errors have its own form. */
import type { ErrorCode } from '../errors.js'
import type { ComponentName } from './components.js'
import { INFERENCE_ERRORS, ok, type Route } from './route.js'

const ERRORS: readonly ErrorCode[] = [...INFERENCE_ERRORS, 'MODEL_NOT_FOUND']

interface TextRoute extends Pick<Route, 'path' | 'id' | 'summary' | 'errorBody'> {
  readonly request: ComponentName
  readonly response: ComponentName
  readonly example: unknown
  readonly description?: string
}

function post({ request, response, example, ...rest }: TextRoute): Route {
  return {
    ...rest,
    method: 'post',
    tag: 'texts',
    headers: ['Content-Encoding'],
    request: { json: request, isRequired: true, example },
    responses: ok(response),
    errors: ERRORS,
  }
}

export const TEXT_ROUTES: readonly Route[] = [
  post({
    path: '/v1/embeddings',
    id: 'createEmbeddings',
    summary: 'Vectors of texts, as clients of OpenAI ask for them',
    request: 'EmbeddingsRequest',
    response: 'Embeddings',
    example: { model: 'all-MiniLM-L6-v2', input: ['A text.', 'Another one.'] },
    errorBody: 'OpenAiError',
  }),
  {
    method: 'get',
    path: '/v1/models',
    id: 'listTextModels',
    tag: 'texts',
    summary: 'Models that take texts',
    responses: ok('TextModelList'),
    errors: [],
    errorBody: 'OpenAiError',
  },
  {
    method: 'get',
    path: '/v1/models/:model',
    id: 'textModel',
    tag: 'texts',
    summary: 'One model that takes texts',
    responses: ok('TextModel'),
    errors: ['MODEL_NOT_FOUND'],
    errorBody: 'OpenAiError',
  },
  post({
    path: '/v1/rerank',
    id: 'rerankDocuments',
    summary: 'Documents by how well they fit a query, the best first',
    request: 'DocumentsRequest',
    response: 'RankedDocuments',
    example: { query: 'Who was late?', documents: ['The Rabbit was.', 'It rained.'], top_n: 1 },
    errorBody: 'OpenAiError',
  }),
  post({
    path: '/embed',
    id: 'embed',
    summary: 'Vectors of texts',
    request: 'EmbedRequest',
    response: 'Vectors',
    example: { inputs: ['A text.', 'Another one.'] },
    errorBody: 'TextError',
  }),
  post({
    path: '/predict',
    id: 'predict',
    summary: 'Labels or entities of texts',
    request: 'PredictRequest',
    response: 'Prediction',
    example: { inputs: [['A text.'], ['Another one.']] },
    errorBody: 'TextError',
  }),
  post({
    path: '/rerank',
    id: 'rerank',
    summary: 'Texts by how well they fit a query, the best first',
    request: 'RerankRequest',
    response: 'Ranks',
    example: { query: 'Who was late?', texts: ['The Rabbit was.', 'It rained.'] },
    errorBody: 'TextError',
  }),
  post({
    path: '/tokenize',
    id: 'tokenize',
    summary: 'Tokens of texts, and where they stand',
    request: 'TokenizeRequest',
    response: 'Tokens',
    example: { inputs: 'A text.' },
    errorBody: 'TextError',
  }),
  {
    method: 'get',
    path: '/info',
    id: 'textInfo',
    tag: 'texts',
    summary: 'Task and limits of a model that takes texts',
    query: [
      {
        name: 'model',
        description: 'Name of the model; may be left out where one model takes texts.',
        schema: { type: 'string' },
      },
    ],
    responses: ok('TextInfo'),
    errors: ['MODEL_NOT_FOUND', 'REQUEST_INVALID', 'MODEL_DISABLED', 'MODEL_OUT_OF_SERVICE'],
    errorBody: 'TextError',
  },
]
