// `npm run generate:grpc`: enums of the generated code become objects and unions, which need no code of their own.
import { readFileSync, writeFileSync } from 'node:fs'

for (const name of ['inference', 'health']) {
  const path = new URL(`${name}_pb.ts`, import.meta.url)
  const text = readFileSync(path, 'utf8').replace(
    /export enum (\w+) \{([\s\S]*?)\n\}/g,
    (_, enumName, members) =>
      `export const ${enumName} = {${members.replace(/^(\s+\w+) = (\d+),$/gm, '$1: $2,')}\n} as const\n` +
      `export type ${enumName} = (typeof ${enumName})[keyof typeof ${enumName}]`,
  )
  writeFileSync(path, text)
}
