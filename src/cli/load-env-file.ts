/** `.env` in the folder in which a command is started: variables that the environment does not have already. */
import { StartupError } from '../errors.ts'

/** @throws StartupError when there is such a file and it cannot be read */
export function loadEnvFile(file = '.env'): void {
  try {
    process.loadEnvFile(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw new StartupError(`${file} cannot be read: ${(error as Error).message}`, { cause: error })
  }
}
