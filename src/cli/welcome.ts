/** What a node says when it is ready: where it is, and three commands to paste. */

/** @param needsKey true once the node asks for a key: then the commands send it */
export function welcome(url: string, needsKey: boolean): string {
  const key = needsKey ? ' -H "Authorization: Bearer $MUSTER_API_KEY"' : ''
  return `
Muster is ready at ${url}   (API: ${url}/docs, stop: Ctrl-C)

Try it: hash some data 1000 times, then pull the result.${needsKey ? ' MUSTER_API_KEY is a key of yours.' : ''}

  echo -n 'hello' | curl -sS${key} -X PUT '${url}/enqueue?iterations=1000' -H 'Content-Type: application/octet-stream' --data-binary @-
  curl -sS${key} -X POST '${url}/pullCompleted?top=10&waitMs=10000'
  curl -sS${key} '${url}/status'

`
}
