/** deploy/Dockerfile, read as its stages and their steps; and which files of the repository a build may copy. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

export interface Stage {
  readonly name: string
  readonly steps: { readonly instruction: string; readonly text: string }[]
}

export const dockerfile = await readFile(join(root, 'deploy/Dockerfile'), 'utf8')
export const stages = parse(dockerfile)
export const final = stages.at(-1) as Stage

function parse(text: string): Stage[] {
  const lines = text
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
  const found: Stage[] = []
  for (const line of lines) {
    const [, instruction = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (instruction === 'FROM') found.push({ name: / AS (\S+)$/.exec(rest)?.[1] ?? 'final', steps: [] })
    else if (instruction !== '') found.at(-1)?.steps.push({ instruction, text: rest })
  }
  return found
}

export const stepsOf = (stage: Stage, instruction: string): string[] =>
  stage.steps.filter(step => step.instruction === instruction).map(({ text }) => text)

export const listOf = (stage: Stage, instruction: string): string[] =>
  JSON.parse(/\[.*\]/.exec(stepsOf(stage, instruction).at(-1) as string)?.[0] as string) as string[]

/** What a COPY takes, from which stage (undefined: from the repository), and where to. */
export function readCopy(text: string): { readonly from?: string; readonly paths: string[]; readonly target: string } {
  const [, from] = /^--from=(\S+) /.exec(text) ?? []
  const paths = text.replace(/^--from=\S+ /, '').split(/\s+/)
  const target = paths.pop() as string
  return { ...(from !== undefined && { from }), paths, target }
}

const allowed = (await readFile(join(root, '.dockerignore'), 'utf8'))
  .split('\n')
  .filter(line => line.startsWith('!'))
  .map(line => line.slice(1))

export const getsPastIgnore = (path: string): boolean =>
  allowed.some(name => path === name || path.startsWith(`${name}/`))
