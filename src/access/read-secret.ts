/** A secret of the settings: as it is, or from a file (which keeps it out of the environment). */
import { readFile } from 'node:fs/promises'
import { StartupError } from '../errors.ts'

/** What nobody guesses: 32 letters and digits are more than 160 bits. */
const shortest = 32

export interface SecretSource {
  readonly value: string
  /** '' for none. */
  readonly file: string
  /** Of the variable, for the message. */
  readonly name: string
}

/**
 * @returns '' when neither is set
 * @throws StartupError when the file cannot be read, or the secret is too short or has spaces in it; it is not repeated
 */
export async function readSecret({ value, file, name }: SecretSource): Promise<string> {
  if (value === '' && file === '') return ''
  if (value !== '' && file !== '') throw new StartupError(`Set ${name} or ${name}_FILE, not both.`)
  const secret = file === '' ? value : await readText(file, `${name}_FILE`)
  if (!/^[\x21-\x7e]+$/.test(secret) || secret.length < shortest || secret.length > 1024)
    throw new StartupError(
      `${file === '' ? name : `${name}_FILE (${file})`} must hold ${shortest} to 1024 visible ASCII characters: "openssl rand -hex 32" makes some.`,
    )
  return secret
}

async function readText(file: string, name: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    throw new StartupError(`${name} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}
