/** The portal: sign in, patients, the worklist of AI tasks, launch of the other apps. */
import { startApp } from "@client/start";
import manifest from "./app.json";
import { wasSignedOut } from "./sign_out";

void startApp({ app: manifest, screen: () => import("./screen"), signInAtOnce: () => !wasSignedOut() });
