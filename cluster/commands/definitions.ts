/**
 * Every command once: its summary, usage, flags and exit codes. Help, parsing, shell completion and
 * the suggestion for a mistyped word all read this table.
 */

export interface Flag {
  /** Placeholder of the value in the help text; absent for a switch. */
  readonly value?: string
  readonly help: string
  readonly default?: string
}

export interface CommandDefinition {
  readonly summary: string
  /** The command line after `onecopy`. */
  readonly usage: string
  /** Paragraphs between the usage and the flags. */
  readonly about: readonly string[]
  readonly flags: Readonly<Record<string, Flag>>
  /** Whether the options of `serve` apply as well. */
  readonly takesServeOptions?: boolean
  /** Paragraphs after the flags. */
  readonly notes?: readonly string[]
}

const SEGMENT_DIR: Flag = {
  value: 'DIR',
  help: 'Folder of the segments.',
  default: '$ONECOPY_SEGMENT_DIR or /dev/shm',
}

export const COMMANDS = {
  serve: {
    summary: 'Serve models over HTTP',
    usage: 'serve [PATH...] [options]',
    about: [
      'Serves ONNX models over HTTP from worker processes that hold one physical copy of the weights. PATH is an ONNX file, a model folder or a model repository.',
      'Every option is also an environment variable (ONECOPY_DRAIN_TIMEOUT=30s) and a key of the config file ({"drainTimeout": "30s"}). Flags win over the environment, which wins over the file.',
    ],
    flags: {
      watch: { help: 'The same as --model-control watch.' },
      config: {
        value: 'FILE',
        help: 'JSON file with these options. Flags and environment variables win over it.',
      },
    },
    takesServeOptions: true,
    notes: ['TIME is 500ms, 30s, 2m or 1h. SIZE is bytes, or 64KiB, 16MiB, 2GiB.'],
  },
  inspect: {
    summary: 'Show what workers share of a model, its memory and whether it batches',
    usage: 'inspect MODEL.onnx|FOLDER [options]',
    about: [
      'Compiles a model as serve does and shows its inputs and outputs, what workers share of it, whether it batches, and the measured memory of another worker. It leaves no files behind.',
      'FOLDER is a text model in the layout of the Hugging Face hub. Its detected settings are shown as well.',
    ],
    flags: {
      workers: { value: 'N', help: 'Workers to calculate the memory for.', default: 'as for serve' },
      'no-measure': { help: 'Skip the memory measurement. Nothing is written to shared memory.' },
      'segment-dir': SEGMENT_DIR,
      kubernetes: {
        help: "Print a pod's memory limit and sizeLimit, as a patch of deploy/kubernetes/base.",
      },
      json: { help: 'Print one JSON document. Sizes are in bytes.' },
    },
    notes: ['Exit code 1: the model cannot be served. The error code says why.'],
  },
  init: {
    summary: 'Write a config.json for a model',
    usage: 'init MODEL.onnx [options]',
    about: [
      'Compiles a model, writes a config that suits its shapes, and explains each key. By default the config goes where the repository expects it: NAME/config.json for NAME/VERSION/model.onnx, NAME.config.json for NAME.onnx, config.json for a single model.onnx.',
    ],
    flags: {
      output: { value: 'DIR', help: 'Write DIR/NAME/config.json instead.' },
      force: { help: 'Overwrite an existing config.' },
    },
  },
  tune: {
    summary: 'Measure the best number of workers and threads for a model',
    usage: 'tune MODEL [options]',
    about: [
      'Measures settings of workers and threads for one model on this machine and prints the best. MODEL is an ONNX file, or a repository with one model.',
    ],
    flags: {
      seconds: { value: 'TIME', help: 'Duration of each measurement. Each runs twice.', default: '3s' },
      rows: { value: 'N', help: 'Rows in each request.', default: '1' },
      'cache-dir': { value: 'DIR', help: 'Compile cache.', default: 'as for serve' },
    },
  },
  load: {
    summary: 'Keep a model in memory for onecopy run',
    usage: 'load MODEL|BUNDLE [options]',
    about: [
      'Keeps a model in memory until a signal arrives, so that onecopy run need not load it. MODEL is an ONNX file. BUNDLE is the folder of an Ersilia bundle. A line on standard output that begins with "ready" signals that the model is loaded.',
    ],
    flags: {
      name: {
        value: 'NAME',
        help: 'Name for onecopy run.',
        default: "a bundle's Identifier, else the file's name",
      },
      http: { help: 'Also serve on --port and --admin-port, as onecopy serve does.' },
      'segment-only': { help: 'Start no worker. onecopy run attaches to the segment itself.' },
    },
    takesServeOptions: true,
    notes: ['The default of --workers is 1.'],
  },
  run: {
    summary: 'Predict a file of molecules with a model that is in memory',
    usage: 'run NAME|BUNDLE --input FILE --output FILE [options]',
    about: [
      'Predicts the molecules of a file. If a server of this user holds the model (onecopy load, onecopy ersilia serve), nothing is loaded: the server answers over its Unix socket, or this process attaches to its segment. Otherwise a bundle is loaded for this run, with a warning.',
      "NAME is a model's name, Identifier or Slug. BUNDLE is the folder of a bundle, or its model/framework.",
    ],
    flags: {
      input: {
        value: 'FILE',
        help: 'CSV with a header and molecules in the first column, or .bin for the binary form. - reads CSV from standard input.',
      },
      output: { value: 'FILE', help: 'CSV, or .bin for the binary form. - writes CSV to standard output.' },
      via: {
        value: 'METHOD',
        help: 'socket, segment or cold: use only this method.',
        default: 'the first that works',
      },
      'segment-dir': SEGMENT_DIR,
      quiet: { help: 'No progress and no warnings.' },
    },
    notes: [
      'Exit codes: 0 every row is written; 1 the model failed; 2 wrong command line; 3 no server holds NAME; 4 the input cannot be read or the output cannot be written; 75 the server is busy or restarting, try again.',
    ],
  },
  ersilia: {
    summary: 'Serve an Ersilia model bundle: POST /run, from SMILES',
    usage: 'ersilia serve BUNDLE [options]',
    about: [
      'Serves an Ersilia model bundle over HTTP, with the Ersilia API: POST /run and its other routes. If the bundle has a model/framework/serve.json, its ONNX checkpoint is loaded once for all workers and requests, and the bundle must reproduce its own examples before the server is ready. Without a serve.json, its run.sh starts for every request.',
      'BUNDLE is the folder of a bundle, or its model/framework.',
    ],
    flags: {},
    takesServeOptions: true,
    notes: ['--models and the options that change models while serving do not apply.'],
  },
  key: {
    summary: 'Create an API key',
    usage: 'key NAME [options]',
    about: [
      'Creates an API key and prints it once; it is not stored. Add the line that identifies it to the file of --api-keys-file, before or while the server runs:',
      '  onecopy key alice --scopes infer 2>>keys',
      'If they are not a terminal, standard output has only the key and standard error only the line for the file.',
    ],
    flags: {
      scopes: {
        value: 'SCOPES',
        help: 'Comma-separated: infer (the public port), metrics (/metrics), admin (change models and workers).',
        default: 'infer',
      },
    },
    notes: ['Clients send it as Authorization: Bearer KEY or as X-API-Key: KEY.'],
  },
  segments: {
    summary: 'List the segments in shared memory and remove those of dead servers',
    usage: 'segments [options]',
    about: [
      "Lists the segments in a segment folder: owner, size, and whether the server still runs. Run it as the server's user: folders of other users are listed, not opened.",
    ],
    flags: {
      'segment-dir': SEGMENT_DIR,
      sweep: { help: 'Remove the segments of dead servers, and nothing else.' },
      json: { help: 'Print one JSON document. Sizes are in bytes.' },
    },
  },
  python: {
    summary: 'Print the path of the Python module',
    usage: 'python',
    about: [
      'Prints the path of the Python module, one file that needs only the standard library. Add its folder to PYTHONPATH, or copy it:',
      '  PYTHONPATH=$(dirname "$(onecopy python)") python3 run.py',
      'onecopy.run("NAME", {"INPUT": array}) sends the inputs to the server that holds the model. onecopy.attach("NAME") returns an onnxruntime session that uses the weights in shared memory.',
    ],
    flags: {},
  },
  completion: {
    summary: 'Print a completion script for a shell',
    usage: 'completion bash|zsh|fish',
    about: [
      'Prints the completion script of a shell. For bash:',
      '  onecopy completion bash > ~/.local/share/bash-completion/completions/onecopy',
    ],
    flags: {},
  },
  help: {
    summary: 'Show the help of a command',
    usage: 'help [COMMAND]',
    about: [],
    flags: {},
  },
} as const satisfies Record<string, CommandDefinition>

export type CommandName = keyof typeof COMMANDS

export const COMMAND_NAMES = Object.keys(COMMANDS) as CommandName[]

export function isCommandName(word: string): word is CommandName {
  return Object.hasOwn(COMMANDS, word)
}
