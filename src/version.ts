/** The name and version of this Muster, from package.json: the one place that has them. */
import { readFileSync } from 'node:fs'

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  name: string
  version: string
}

export const { name: packageName, version } = manifest
