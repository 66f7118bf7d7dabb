/**
 * docs/configuration.md, generated from the option table. `npm run docs` writes it; a test compares the file
 * with it.
 */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { COMMON_OPTIONS } from '../../cluster/commands/help.js'
import { dashed, environmentName } from '../../src/config/load.js'
import { OPTION_GROUPS } from '../../src/config/option.js'
import { OPTIONS, type OptionName } from '../../src/config/schema.js'

export const CONFIGURATION_PAGE = fileURLToPath(new URL('../../../docs/configuration.md', import.meta.url))

const INTRODUCTION = `# Configuration

Every option of \`onecopy serve\` is a flag, an environment variable and a key of a JSON file
(\`--config FILE\` or \`ONECOPY_CONFIG\`). Flags win over the environment, which wins over the file.
TIME is \`500ms\`, \`30s\`, \`2m\` or \`1h\`. SIZE is bytes, or \`64KiB\`, \`16MiB\`, \`2GiB\`. \`--watch\` is
short for \`--model-control watch\`. The settings of one model are in its
[config.json](model-config.md).

This page is generated from the option table: \`npm run docs\`.`

function cell(text: string): string {
  return text.replaceAll('|', '\\|')
}

function row(name: OptionName): string {
  const definition = OPTIONS[name]
  const usage = `--${dashed(name)}${definition.value === '' ? '' : ` ${definition.value}`}`
  const byDefault = 'defaultHelp' in definition ? definition.defaultHelp : `\`${definition.default()}\``
  return `| \`${cell(usage)}\` | \`${environmentName(name)}\` | \`${name}\` | ${cell(byDefault)} | ${cell(definition.help)} |`
}

function table(title: string, names: readonly OptionName[]): string {
  return [
    `## ${title}`,
    '',
    '| flag | environment | key | default | |',
    '|---|---|---|---|---|',
    ...names.map(row),
  ].join('\n')
}

export function configurationPage(): string {
  const names = Object.keys(OPTIONS) as OptionName[]
  const groups = OPTION_GROUPS.map((group) =>
    table(
      group,
      names.filter((name) => OPTIONS[name].group === group),
    ),
  )
  const common = `Most used: ${COMMON_OPTIONS.map((name) => `\`--${dashed(name)}\``).join(', ')}.`
  return `${[INTRODUCTION, common, ...groups].join('\n\n')}\n`
}

if (process.argv.includes('--write')) writeFileSync(CONFIGURATION_PAGE, configurationPage())
